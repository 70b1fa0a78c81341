// Forced tool calls and structured output with the JavaScript SDK, of a server whose model is real.
// Usage: node tools.mjs URL; prints one JSON object, scene -> outcome.
import Anthropic from "@anthropic-ai/sdk";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0, timeout: 100_000 });
const WEATHER = {
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] }, days: { type: "integer", enum: [1, 2, 3] } },
  required: ["city", "days"],
  additionalProperties: false,
};
const asked = { model: "any", max_tokens: 200, messages: [{ role: "user", content: "Weather in Rome, 2 days?" }] };

const scenes = {
  async forced() {
    const tool = { name: "get_weather", description: "The weather in a city.", input_schema: WEATHER };
    const tool_choice = { type: "tool", name: "get_weather", disable_parallel_tool_use: true };
    const message = await client.messages.stream({ ...asked, tools: [tool], tool_choice }).finalMessage();
    return [message.stop_reason, message.content];
  },
  async parse() {
    const output_config = { format: jsonSchemaOutputFormat(WEATHER) };
    return (await client.messages.parse({ ...asked, output_config })).parsed_output;
  },
  async tool_runner() {
    const ran = [];
    const run = async (input) => (ran.push(input), "sun");
    const tool = betaTool({ name: "get_weather", description: "The weather.", inputSchema: WEATHER, run });
    const tool_choice = { type: "any", disable_parallel_tool_use: true };
    const runner = client.beta.messages.toolRunner({ ...asked, tools: [tool], tool_choice, max_iterations: 2 });
    const reasons = [];
    for await (const message of runner) reasons.push(message.stop_reason);
    return [ran, reasons];
  },
};

const outcomes = {};
for (const [name, scene] of Object.entries(scenes))
  outcomes[name] = await scene().catch((error) => ["failed", error.constructor.name, String(error.message)]);
console.log(JSON.stringify(outcomes));
