/**
 * A model's chat template, and the one beside it for conversations with tools (`tool_use`).
 *
 * **Details**
 *
 * Files of Hermes 2 and 3 and of Command-R have several templates by name. As transformers and llama.cpp do, `tool_use` renders
 * prompts with tools, and the default one all others.
 *
 * **Gotchas**
 *
 * A conversation that has calls, without tools in its request, is rendered by the default template, which may reject it.
 */
import type { ChatTemplate, ChatTemplateOptions, Unusable } from "./ChatTemplate.ts"
import { makeChatTemplate } from "./ChatTemplate.ts"

/** One template that renders with the one or the other. */
const together = (plain: ChatTemplate, tools: ChatTemplate): ChatTemplate => ({
  ...plain,
  supportsTools: tools.supportsTools,
  callSyntax: tools.callSyntax,
  // Thoughts are marked alike in both.
  source: `${plain.source}${tools.source}`,
  render: (messages, definitions = [], thinking) =>
    (definitions.length === 0 ? plain : tools).render(messages, definitions, thinking)
})

/**
 * The templates as one, or why none is usable.
 *
 * @param toolUse the source of the template for tools; undefined or unusable, the other one renders all prompts
 */
export const makeNamedTemplates = (
  options: ChatTemplateOptions,
  toolUse: string | undefined
): ChatTemplate | Unusable => {
  const plain = makeChatTemplate(options)
  const tools = toolUse === undefined ? undefined : makeChatTemplate({ ...options, source: toolUse })
  if (tools === undefined || "problem" in tools) return plain
  return "problem" in plain ? tools : tools.supportsTools ? together(plain, tools) : plain
}
