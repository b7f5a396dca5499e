/** What the Anthropic dialect calls the fields that engines and `Inference` find wrong. Pure. */
import { renaming } from "../shared/FieldNames.ts"

/** Of paths that do not lead into a message. */
export const rename = renaming([
  [/^tools\[(\d+)\]\.parameters/, "tools[$1].input_schema"],
  [/^toolChoice/, "tool_choice"],
  [/^format/, "output_config.format"],
  [/^maxTokens/, "max_tokens"],
  [/^(top)P/, "$1_p"],
  [/^(top)K/, "$1_k"],
  [/^stop/, "stop_sequences"],
  [/^keepAlive/, "keep_alive"]
])
