// A small local model behind the OpenAI-compatible path that claw-llm calls. It proves the wire;
// what a model of this size says is no measure of anything.
// Usage: node serve.mjs FOLDER  (a folder with node_modules/node-llama-cpp and one *.gguf file)
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const entry = createRequire(join(folder, "package.json")).resolve("node-llama-cpp");
const { getLlama, LlamaChatSession } = await import(pathToFileURL(entry));
const file = readdirSync(folder).find((name) => name.endsWith(".gguf"));
// One thread: several wait for each other in a loop, which on a busy machine takes for ever.
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: join(folder, file) });
const context = await model.createContext({ contextSize: 4096 });

// The schema of the request, in the words of this program.
function schemaOf(value) {
  if (Array.isArray(value)) return value.map(schemaOf);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).filter(([key]) => key !== "description" && key !== "required");
  return Object.fromEntries(entries.map(([key, inner]) => [key === "anyOf" ? "oneOf" : key, schemaOf(inner)]));
}

async function complete(request) {
  const grammar = await llama.createGrammarForJsonSchema(schemaOf(request.response_format.json_schema.schema));
  const system = request.messages.filter((m) => m.role === "system").map((m) => m.content).join("\n");
  const rest = request.messages.filter((m) => m.role !== "system").map((m) => m.content).join("\n");
  const session = new LlamaChatSession({ contextSequence: context.getSequence(), systemPrompt: system });
  try {
    return await session.prompt(rest.slice(-3000), { grammar, maxTokens: 200 });
  } finally {
    session.dispose({ disposeSequence: true });
  }
}

const server = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", async () => {
    try {
      const content = await complete(JSON.parse(body));
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ model: file, choices: [{ index: 0, message: { role: "assistant", content } }] }));
    } catch (error) {
      response.writeHead(500).end(JSON.stringify({ error: { message: String(error) } }));
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/v1`));
