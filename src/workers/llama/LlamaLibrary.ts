/**
 * The parts of node-llama-cpp that the engine uses where it loads the binary itself (`LlamaBinary`).
 *
 * **Details**
 *
 * In `dist` this file contains the code of the library that they need, in one module. The package itself is 500 modules,
 * with its downloads and builds, and takes three times the CPU time.
 *
 * **Gotchas**
 *
 * Never import it beside the package: there would be two of each class.
 */
export {
  GeneralChatWrapper,
  GgmlType,
  Llama,
  LlamaGrammarEvaluationState,
  LlamaLogLevel,
  readGgufFileInfo,
  resolveChatWrapper,
  TokenBias
} from "node-llama-cpp"
