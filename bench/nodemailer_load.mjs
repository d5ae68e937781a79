// One load by nodemailer over its pool: node nodemailer_load.mjs '{"modules": ..., "port": ..., ...}'; prints its figures.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { modules, port, connections, messages, warmUp, envelope, content } = JSON.parse(process.argv[2]);
const nodemailer = createRequire(modules)("nodemailer");
const raw = readFileSync(content);
const mailer = nodemailer.createTransport({
  pool: true, maxConnections: connections, maxMessages: Infinity,
  host: "127.0.0.1", port, secure: false, ignoreTLS: true,
});

async function send(count) {
  let left = count;
  async function oneAfterTheOther() {
    while (left > 0) {
      left--;
      await mailer.sendMail({ envelope, raw });
    }
  }
  // Two for each connection, so that none waits for its next message.
  await Promise.all(Array.from({ length: connections * 2 }, oneAfterTheOther));
}

await send(warmUp);
const began = process.hrtime.bigint();
const used = process.cpuUsage();
await send(messages);
const cpu = process.cpuUsage(used);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(JSON.stringify({ seconds, cpu_seconds: (cpu.user + cpu.system) / 1e6 }));
mailer.close();
