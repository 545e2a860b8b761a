// Sends recordings to a running yapit with OpenAI's client for Node; prints what it saw as JSON.
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const [, , baseURL, path] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const file = () => fs.createReadStream(path); // sent without a length
const seen = {};

seen.json = await client.audio.transcriptions.create({ model: "whisper-1", file: file() });
seen.srt = await client.audio.transcriptions.create({ model: "whisper-1", file: file(), response_format: "srt" });
seen.verbose = await client.audio.transcriptions.create({
  model: "whisper-1", file: await toFile(fs.readFileSync(path), "x.wav"), response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
  chunking_strategy: { type: "server_vad", threshold: 0.5 },
});

const stream = await client.audio.transcriptions.create({
  model: "whisper-1", file: file(), stream: true, include: ["logprobs"],
});
seen.events = [];
for await (const event of stream) seen.events.push(event);

seen.translation = await client.audio.translations.create({
  model: "whisper-1", file: file(), response_format: "verbose_json",
});

try {
  await client.audio.transcriptions.create({ model: "whisper-1", file: await toFile(Buffer.from("text"), "x.wav") });
} catch (error) {
  seen.error = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
}
console.log(JSON.stringify(seen));
