// Embeds with OpenAI's client for Node; prints what it got as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const input = ["one", "two", "three"];

const usual = await client.embeddings.create({ model: "echo", input });
const floats = await client.embeddings.create({ model: "echo", input, encoding_format: "float" });
const tokens = await client.embeddings.create({ model: "echo", input: [[1, 2, 3], [4]], dimensions: 5 });
const seen = {
  usual: usual.data.map((item) => Array.from(item.embedding)),
  floats: floats.data.map((item) => item.embedding),
  tokens: tokens.data.map((item) => Array.from(item.embedding)),
  usage: usual.usage,
};
try {
  await client.embeddings.create({ model: "echo", input: ["one", ""] });
} catch (error) {
  seen.error = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
}
console.log(JSON.stringify(seen));
