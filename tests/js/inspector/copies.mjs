// Reads requests as JSON lines {format, base, request}, body as base64, and writes each as a command or program, as JSON.
import { createInterface } from "node:readline";

import { fromBase64 } from "../../../socket2me/inspector/static/bytes.js";
import { copyAs } from "../../../socket2me/inspector/static/copy-as.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { format, base, request } = JSON.parse(line);
  console.log(JSON.stringify(copyAs(format, { ...request, body: fromBase64(request.body) }, base)));
}
