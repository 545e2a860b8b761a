// Drives a running yapit with OpenAI's client for Node: chat, completions and responses; prints what it saw as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "one two three" }];
const weather = { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } };
const tools = [{ type: "function", function: weather }];
const seen = {};

const answer = await client.chat.completions.create({ model: "writer", messages, n: 2 });
seen.answers = answer.choices.map((choice) => choice.message.content);
seen.usage = answer.usage.total_tokens;

seen.chunks = [];
for await (const chunk of await client.chat.completions.create({
  model: "writer", messages, stream: true, stream_options: { include_usage: true },
})) {
  if (chunk.usage) seen.streamedUsage = chunk.usage.total_tokens;
  for (const choice of chunk.choices) if (choice.delta.content) seen.chunks.push(choice.delta.content);
}

const helper = client.chat.completions.stream({ model: "caller", messages, tools });
const final = await helper.finalChatCompletion();
seen.calls = final.choices[0].message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]);
seen.finish = final.choices[0].finish_reason;

const format = {
  type: "json_schema",
  json_schema: { name: "city", schema: { type: "object" }, strict: true },
};
const parsed = await client.chat.completions.parse({ model: "json", messages, response_format: format });
seen.parsed = JSON.parse(parsed.choices[0].message.content);

seen.completions = (await client.completions.create({ model: "writer", prompt: ["a", "b c"], logprobs: 1 })).choices
  .map((choice) => [choice.text, choice.logprobs.text_offset]);
seen.pieces = [];
for await (const chunk of await client.completions.create({ model: "writer", prompt: "a b", stream: true })) {
  seen.pieces.push(chunk.choices[0].text);
}

const response = await client.responses.create({ model: "caller", input: "x", tools: [{ type: "function", ...weather }] });
seen.output = response.output.map((item) => item.type);
seen.text = response.output_text;

const stream = client.responses.stream({ model: "writer", input: "one two" });
seen.events = [];
for await (const event of stream) seen.events.push(event.type);
seen.finalText = (await stream.finalResponse()).output_text;

for (const [name, call] of Object.entries({
  early: () => client.chat.completions.create({ model: "brief", messages: [{ role: "user", content: "a b c d e" }] }),
  late: async () => {
    for await (const _ of await client.chat.completions.create({ model: "failing-writer", messages, stream: true }));
  },
})) {
  try {
    await call();
  } catch (error) {
    seen[name] = { kind: error.constructor.name, status: error.status ?? null, code: error.code, param: error.param };
  }
}
console.log(JSON.stringify(seen));
