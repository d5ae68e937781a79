// npm's smtp-server as a relay, at three doors: node smtp_server.mjs '{"folder": ..., "certificate": ..., "key": ...}'
// Prints a line of JSON with its ports (no TLS and no login; STARTTLS and login; implicit TLS and login), then one for
// each message: the connection, who logged in, the lines of MAIL and RCPT as they came, whom it took the message for,
// and the file with its content.
import { readFileSync, writeFileSync } from "node:fs";
import { SMTPServer } from "smtp-server";

const { folder, certificate, key, user, password } = JSON.parse(process.argv[2]);
const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
const REPLIES = { unknown: [550, "5.1.1 no such user"], greylisted: [450, "4.2.0 come again later"] };
const said = new Map(); // the lines of MAIL and RCPT of each connection since its last message
let messages = 0;

const refusal = ([responseCode, text]) => Object.assign(new Error(text), { responseCode });
const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const note = ({ tnx, cid }, direction, line) => {
  if (tnx !== "command" || direction !== "C:") return;
  if (/^(EHLO|RSET)/i.test(line)) said.set(cid, []);
  if (/^(MAIL|RCPT)/i.test(line)) said.set(cid, [...(said.get(cid) ?? []), String(line)]);
};
const quiet = () => {};
const logger = { level: () => {}, trace: quiet, debug: note, info: quiet, warn: quiet, error: quiet, fatal: quiet };

const handlers = {
  logger,
  banner: "smtp-server",
  size: 40_000_000,
  hideENHANCEDSTATUSCODES: true, // the texts above have theirs
  hideDSN: false,
  disableReverseLookup: true,
  onAuth: (auth, session, done) =>
    auth.username === user && auth.password === password
      ? done(null, { user: `${auth.method} ${auth.username}` })
      : done(refusal([535, "5.7.8 wrong"])),
  onRcptTo: ({ address }, session, done) => {
    const reply = REPLIES[address.split("@")[0]];
    done(reply ? refusal(reply) : null);
  },
  onData: (stream, session, done) => {
    const pieces = [];
    const { id: connection, user = "", secure } = session;
    const recipients = session.envelope.rcptTo.map(({ address }) => address);
    const lines = said.get(connection);
    said.set(connection, []);
    stream.on("data", (piece) => pieces.push(piece));
    stream.on("end", () => {
      const file = `${++messages}.eml`;
      writeFileSync(`${folder}/${file}`, Buffer.concat(pieces));
      print({ connection, user, secure, lines, recipients, file });
      done(null, `2.0.0 kept as ${file}`);
    });
  },
};

const doors = [
  // With PIPELINING, Exim sends QUIT and half-closes right behind the end of data, and smtp-server then answers nothing.
  new SMTPServer({ ...handlers, authOptional: true, disabledCommands: ["AUTH", "STARTTLS"], hidePIPELINING: true }),
  new SMTPServer({ ...handlers, ...tls }),
  new SMTPServer({ ...handlers, ...tls, secure: true }),
];
const listening = doors.map((door) => new Promise((ready) => {
  const bound = door.listen(0, "127.0.0.1", () => ready(bound.address().port));
}));
print({ ports: await Promise.all(listening) });
