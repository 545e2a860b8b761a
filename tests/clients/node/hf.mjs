// Drives a running yapit and its tiny models with OpenAI's client for Node; prints what it saw as JSON.
import OpenAI from "openai";

const [baseURL, image, toolsText, schemaText] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 90_000 });
const model = "tiny-chat";
const messages = [{ role: "user", content: "Hello, who are you?" }];
const greedy = { model, messages, temperature: 0, max_completion_tokens: 24 };
const seen = {};

seen.answer = (await client.chat.completions.create(greedy)).choices[0].message.content;
const texts = [];
for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true })) {
  if (chunk.choices[0].delta.content) texts.push(chunk.choices[0].delta.content);
}
seen.streamed = texts.join("");
seen.chunks = texts.length;

const json_schema = { name: "city", schema: JSON.parse(schemaText), strict: true };
seen.structured = (await client.chat.completions.parse({
  model, messages, temperature: 1, seed: 3, response_format: { type: "json_schema", json_schema },
})).choices[0].message.content;

const calling = {
  model, messages, temperature: 1, seed: 4,
  tools: JSON.parse(toolsText), tool_choice: "required", parallel_tool_calls: false,
};
const choice = (await client.chat.completions.create(calling)).choices[0];
const told = ({ function: { name, arguments: given } }) => ({ name, arguments: given });
seen.call = told(choice.message.tool_calls[0]);
seen.finish = choice.finish_reason;
const final = await client.chat.completions.stream(calling).finalChatCompletion();
seen.streamedCall = told(final.choices[0].message.tool_calls[0]);

const input = { model, input: messages[0].content, temperature: 0, max_output_tokens: 24 };
seen.response = (await client.responses.create(input)).output_text;
seen.events = [];
for await (const event of await client.responses.create({ ...input, stream: true })) seen.events.push(event.type);

const embed = { model: "minilm", input: "A kitten on a mat" };
seen.usual = Array.from((await client.embeddings.create(embed)).data[0].embedding);
seen.floats = (await client.embeddings.create({ ...embed, encoding_format: "float" })).data[0].embedding;

const content = [{ type: "text", text: "?" }, { type: "image_url", image_url: { url: image } }];
const tokens = async (content) => (await client.chat.completions.create({
  model: "tiny-vision", messages: [{ role: "user", content }], max_tokens: 2,
})).usage.prompt_tokens;
seen.imageTokens = (await tokens(content)) - (await tokens("?"));

try {
  await client.chat.completions.create({ model, messages: [{ role: "user", content: "x".repeat(32_768) }] });
} catch (error) {
  seen.tooLong = { kind: error.constructor.name, code: error.code, param: error.param };
}
console.log(JSON.stringify(seen));
