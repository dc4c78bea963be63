// Apps as they were written for the originals, line by line as those versions taught it.
//
//   node --no-deprecation originals.cjs VERSION SERVER 1.1|2.0
//
// They say their URL when they are connected, and what their handlers were given. One that throws ends.
const http = require("node:http");

const [version, server, kind] = process.argv.slice(2);
const io = require(`sio-${version}`);
const say = (...said) => console.log(JSON.stringify(said));

// 1.1: a table of routes and files. A handler has the request, and nothing to answer it with.
const handlers = {
  foo: {
    bar: (params, body) => say("foo.bar", params.name, body),
    baz: (params) => say("foo.baz", params.name),
  },
};

function wrapper(request) {
  const { params } = request;
  const handler = handlers[params.route] && handlers[params.route][params.file];
  if (handler) handler(params, request.body);
  else say("no handler", params.route, params.file);
}

// 2.0: `url` decides, and the second argument answers the caller.
function listener(request, respond) {
  const name = request.body.name || request.query.name;
  switch (request.url) {
    case "greet":
      return respond(200, `<p>Hello, ${name}</p>`);
    case "greet/me":
      return respond(200, { hello: request.query.who.name, all: request.query.who.langs });
    case "upload":
      return respond(201);
    case "nothing":
      return respond();
    default:
      return respond(404);
  }
}

http.get(`${server}/new`, { headers: { Accept: "application/json" } }, (answer) => {
  let body = "";
  answer.on("data", (data) => (body += data));
  answer.on("end", () => {
    const token = JSON.parse(body);
    const socket = io(`${server}/${token}`);
    socket.on("connect", () => say("connected", `${server}/go/${token}`));
    socket.on("request", kind === "1.1" ? wrapper : listener);
  });
});
