// Drives a running yapit with OpenAI's client for Node; prints what it saw as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const seen = {};

const speech = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "Hello from Node." });
seen.type = speech.headers.get("content-type");
seen.bytes = (await speech.arrayBuffer()).byteLength;

const streamed = await client.audio.speech.create({
  model: "espeak", voice: "en-us", input: "One sentence. Another sentence. ".repeat(20), response_format: "opus",
});
seen.chunks = 0;
for await (const chunk of streamed.body) seen.chunks += chunk.length > 0 ? 1 : 0;

seen.models = (await client.models.list()).data.map((model) => model.id);
seen.retrieved = (await client.models.retrieve("espeak")).id;

for (const [name, body] of Object.entries({
  voice: { model: "espeak", voice: "nobody", input: "x" },
  model: { model: "nobody", voice: "en-us", input: "x" },
})) {
  try {
    await client.audio.speech.create(body);
  } catch (error) {
    seen[name] = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}
console.log(JSON.stringify(seen));
