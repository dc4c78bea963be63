// An app as the original's documentation shows one: an emitter of events that gets a token, refreshes it every 120
// seconds, and has its requests heard. Only the URL is the relay's.
//
//   node --no-deprecation app.cjs VERSION SERVER
const { EventEmitter } = require("node:events");
const http = require("node:http");

const io = require(`sio-${process.argv[2]}`);

function get(url, done) {
  http.get(url, { headers: { Accept: "application/json" } }, (answer) => {
    let body = "";
    answer.setEncoding("utf8");
    answer.on("data", (data) => (body += data));
    answer.on("end", () => done(answer.statusCode, body));
  });
}

class App extends EventEmitter {
  constructor(server) {
    super();
    get(`${server}/new`, (status, body) => {
      const token = JSON.parse(body);
      this.url = `${server}/go/${token}`;
      const socket = io(`${server}/${token}`);
      socket.on("connect", () => this.emit("connected"));
      socket.on("disconnect", () => this.emit("disconnected"));
      socket.on("request", (request) => this.emit("request", request));
      setInterval(() => get(`${server}/refresh/${token}`, (status) => this.emit("refreshed", status)), 120 * 1000);
    });
  }

  listen(listener) {
    this.on("request", listener);
  }
}

// Two minutes are a tenth of a second here.
const { setInterval: every } = globalThis;
globalThis.setInterval = (action, milliseconds) => every(action, milliseconds === 120_000 ? 100 : milliseconds);

const app = new App(process.argv[3]);
const say = (...said) => console.log(JSON.stringify(said));
app.on("connected", () => {
  say("connected", app.url);
  app.once("refreshed", (status) => say("refreshed", status));
});
app.on("disconnected", () => say("disconnected"));
app.listen((request) => say("request", request));
