// What the JavaScript SDK sees of a server, scene by scene, each with the same outcome as its twin in tests/sdk_scenes.py.
// Usage: node scenes.mjs URL; prints one JSON object, scene -> outcome.
import Anthropic from "@anthropic-ai/sdk";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

const url = process.argv[2];
const client = new Anthropic({ baseURL: url, apiKey: "any", maxRetries: 0, logLevel: "error" });
const asked = (content, more = {}) => ({
  model: "claude-opus-5-5",
  max_tokens: 500,
  messages: [{ role: "user", content }],
  ...more,
});
const WEATHER = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const REPORT = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "number" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

function parts(message) {
  return message.content.map((block) => {
    if (block.type === "thinking") return ["thinking", block.thinking, block.signature];
    if (block.type === "text") return ["text", block.text];
    return [block.type, block.name, block.input];
  });
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return [error.constructor.name, error.status ?? null, String(error.message)];
  }
  return ["nothing failed"];
}

const loop = (stream) => {
  const ran = [];
  const tool = betaTool({
    name: "get_weather",
    description: "The weather in a city.",
    inputSchema: WEATHER,
    run: async ({ city }) => {
      ran.push(city);
      if (city === "Atlantis") throw new Error("there is no Atlantis");
      return city === "Rome" ? "sun in Rome" : "snow in Oslo";
    },
  });
  const content = "What is the weather in Rome and Oslo?";
  return { ran, runner: client.beta.messages.toolRunner(asked(content, { tools: [tool], stream })) };
};

const scenes = {
  async create() {
    const message = await client.messages.create(asked("all kinds"));
    return [message.role, message.model, message.stop_reason, parts(message), message.usage.input_tokens];
  },
  async stream() {
    const stream = client.messages.stream(asked("all kinds"));
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const message = await stream.finalMessage();
    return [message.role, message.model, message.stop_reason, parts(message), message.usage.input_tokens, text];
  },
  async events() {
    const kinds = [];
    for await (const event of await client.messages.create(asked("count to five", { stream: true })))
      if (event.type !== kinds.at(-1)) kinds.push(event.type);
    return kinds;
  },
  async count() {
    const counted = await client.messages.countTokens({ model: "any", messages: asked("one two three").messages });
    return counted.input_tokens;
  },
  async models() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    const one = await client.models.retrieve("claude-opus-5-5");
    return [listed, one.id, one.max_input_tokens, one.capabilities.thinking.supported];
  },
  async unknown_model() {
    return (await failure(client.models.retrieve("no-such-model"))).slice(0, 2);
  },
  async parse() {
    const format = jsonSchemaOutputFormat(REPORT);
    const message = await client.messages.parse(asked("Rome as an object", { output_config: { format } }));
    return message.parsed_output;
  },
  async parse_stream() {
    const format = jsonSchemaOutputFormat(REPORT);
    const stream = client.messages.stream(asked("Rome as an object", { output_config: { format } }));
    return (await stream.finalMessage()).parsed_output;
  },
  async tool_runner() {
    const { ran, runner } = loop(false);
    const seen = [];
    for await (const message of runner) seen.push(message);
    const sizes = seen.map((message) => message.usage.input_tokens);
    return [ran, seen.map(parts), sizes.every((size, at) => at === 0 || size > sizes[at - 1])];
  },
  async tool_runner_stream() {
    const { ran, runner } = loop(true);
    const seen = [];
    for await (const stream of runner) seen.push(await stream.finalMessage());
    return [ran, seen.map(parts)];
  },
  async thinking_echo() {
    const first = await client.messages.create(asked("all kinds", { thinking: { type: "adaptive" } }));
    const result = { type: "tool_result", tool_use_id: "toolu_1", content: "it thought before" };
    const unsigned = { type: "thinking", thinking: "of another server", signature: "" };
    const messages = [
      ...asked("all kinds").messages,
      { role: "assistant", content: [unsigned, ...first.content] },
      { role: "user", content: [result] },
    ];
    return parts(await client.messages.create({ ...asked("x"), messages }));
  },
  async overflow() {
    return failure(client.messages.create(asked("word ".repeat(3000))));
  },
  async overloaded() {
    return parts(await client.withOptions({ maxRetries: 2 }).messages.create(asked("busy?")));
  },
  async broken_stream() {
    const seen = await failure(client.messages.stream(asked("break in the middle")).finalMessage());
    return seen[2].includes("it broke");
  },
  async image() {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    return failure(client.messages.create(asked([{ type: "image", source }, { type: "text", text: "What is it?" }])));
  },
  async stop_reasons() {
    const more = [{}, { max_tokens: 2 }, { stop_sequences: ["four"] }];
    const counts = await Promise.all(more.map((fields) => client.messages.create(asked("count to five", fields))));
    const others = await Promise.all(
      ["no thanks", "window is full"].map((text) => client.messages.create(asked(text))),
    );
    return [...counts, ...others].map((message) => [message.stop_reason, message.stop_sequence]);
  },
  async leaving() {
    const stream = await client.messages.create(asked("it never ends", { stream: true }));
    for await (const event of stream) if (event.type === "content_block_delta") break;
    for (;;) {
      const { requests } = await (await fetch(`${url}/health`)).json();
      if (requests.disconnected > 0) return true;
    }
  },
};

const outcomes = {};
for (const [name, scene] of Object.entries(scenes))
  outcomes[name] = await scene().catch((error) => ["failed", error.constructor.name, String(error.message)]);
console.log(JSON.stringify(outcomes));
