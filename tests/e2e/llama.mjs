// llama.mjs NODE_LLAMA_CPP MODEL.gguf < PROMPTS.json: for each text of a JSON array one line {"tokens": [...],
// "logp": [...]}, special tokens in it as such, the logarithms of the next token's probabilities by llama.cpp, as node-llama-cpp carries it.
import {pathToFileURL} from "node:url";
import {readFileSync} from "node:fs";
import {join} from "node:path";

const [,, folder, file] = process.argv;
const {getLlama} = await import(pathToFileURL(join(folder, "dist", "index.js")).href);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 512, threads: 1});
const sequence = context.getSequence();
const first = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
const options = {temperature: 1, topK: 0, topP: 1, minP: 0};
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
    const tokens = [...first, ...model.tokenize(text, true)];
    await sequence.clearHistory();
    const out = await sequence.controlledEvaluate([
        ...tokens.slice(0, -1), [tokens.at(-1), {generateNext: {probabilities: true, options}}]
    ]);
    const p = out.at(-1).next.probabilities;
    const logp = Array.from({length: p.size}, (_, i) => Math.log(p.get(i)));
    console.log(JSON.stringify({tokens, logp}));
}
process.exit(0);
