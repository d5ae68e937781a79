// Sends one message with nodemailer: node nodemailer_send.mjs '{"transport": {...}, "message": {...}, "copies": 1}'
import { readFileSync } from "node:fs";
import nodemailer from "nodemailer";

const { transport, message, copies, ca } = JSON.parse(process.argv[2]);
if (ca) transport.tls = { ca: readFileSync(ca) };
const mailer = nodemailer.createTransport(transport);
const sent = [];
for (let n = 0; n < copies; n++) sent.push(mailer.sendMail({ ...message, subject: `${message.subject} ${n}` }));
for (const info of await Promise.all(sent)) console.log(info.response);
mailer.close();
