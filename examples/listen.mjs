import { io } from "socket.io-client";

const socket = io(process.argv[2]);

socket.on("request", (request) => {
  console.log(request.method, request.params, request.body);
});
socket.on("connect_error", (error) => console.error(error.message));
socket.on("disconnect", (reason) => console.log("disconnected:", reason));
