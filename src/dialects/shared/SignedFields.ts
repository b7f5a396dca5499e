/**
 * Signed reasoning in the fields of dialects that have none for it: OpenRouter's `reasoning_details` in OpenAI chat, and
 * `encrypted_content` of Responses. Pure.
 *
 * **Details**
 *
 * Clients send both back unchanged, so that Anthropic gets the thoughts before a call with their signatures. The id of a detail
 * has its maker; `encrypted_content` is encoded and not encrypted. What another service has made is no reasoning of these.
 */
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import { makerBehind, makerThere, ownDetail } from "../../domain/SignedReasoning.ts"
import { at, type Fields, fieldsOf, listAt, parse, textAt } from "./Json.ts"

/** OpenRouter's name for reasoning of Anthropic's API. */
const format = "anthropic-claude-v1"

/** A part of `reasoning_details`. */
export const detailOf = (signed: SignedReasoning): Fields => {
  const id = `${ownDetail}${signed.maker ?? ""}`
  return signed.type === "thinking"
    ? { type: "reasoning.text", text: signed.thinking, signature: signed.signature, id, format }
    : { type: "reasoning.encrypted", data: signed.data, id, format }
}

const madeBy = (maker: string | undefined) => maker === undefined || maker === "" ? {} : { maker }

const signedIn = (
  text: string | undefined,
  signature: string,
  data: string,
  maker: string | undefined
): ReadonlyArray<SignedReasoning> => {
  if (data !== "") return [{ type: "redacted_thinking", data, ...madeBy(maker) }]
  return signature === "" ? [] : [{ type: "thinking", thinking: text ?? "", signature, ...madeBy(maker) }]
}

/** Whether a part of `reasoning_details` is one of this service. */
export const isOwnDetail = (detail: unknown): boolean => textAt(detail, "id")?.startsWith(ownDetail) === true

const makerIn = (detail: unknown): string => textAt(detail, "id")?.slice(ownDetail.length) ?? ""

/** A part of `reasoning_details` as a deployment gets it; undefined if it is one of this service and not for that deployment. */
export const detailFor = (detail: unknown, options: DeploymentOptions): unknown => {
  if (!isOwnDetail(detail)) return detail
  const maker = makerThere(makerIn(detail), options)
  return maker === undefined ? undefined : { ...detail as Fields, id: `${ownDetail}${maker}` }
}

const namedIn = (message: Fields, options: DeploymentOptions): Fields => ({
  ...message,
  reasoning_details: listAt(message, "reasoning_details").map((detail) =>
    isOwnDetail(detail) ? { ...detail as Fields, id: `${ownDetail}${makerBehind(makerIn(detail), options)}` } : detail
  )
})

/**
 * An answer or a chunk of another Troupe with the makers as this one names them; the same one without its details.
 *
 * @param field of the messages in the choices
 */
export const withMakers = (body: Fields, field: "delta" | "message", options: DeploymentOptions): Fields => {
  const choices = listAt(body, "choices")
  if (!choices.some((choice) => listAt(choice, field, "reasoning_details").some(isOwnDetail))) return body
  return {
    ...body,
    choices: choices.map((choice) => {
      const message = fieldsOf(at(choice, field))
      return message === undefined ? choice : { ...choice as Fields, [field]: namedIn(message, options) }
    })
  }
}

/** The signed reasoning of a message of OpenAI chat. */
export const ofDetails = (message: Fields): ReadonlyArray<SignedReasoning> =>
  listAt(message, "reasoning_details").filter(isOwnDetail).flatMap((detail) =>
    signedIn(
      textAt(detail, "text"),
      textAt(detail, "signature") ?? "",
      textAt(detail, "data") ?? "",
      makerIn(detail)
    )
  )

const version = 1

/** The `encrypted_content` of an item; undefined without signed reasoning. */
export const contentOf = (reasoning: ReadonlyArray<SignedReasoning> = []): string | undefined =>
  reasoning.length === 0
    ? undefined
    : Buffer.from(JSON.stringify({ troupe: version, reasoning }), "utf8").toString("base64url")

/** The signed reasoning of an `encrypted_content`; none if another service made it. */
export const ofContent = (content: unknown): ReadonlyArray<SignedReasoning> => {
  const json = typeof content === "string" ? parse(Buffer.from(content, "base64url").toString("utf8")) : undefined
  return at(json, "troupe") !== version ? [] : listAt(json, "reasoning").flatMap((one) =>
    signedIn(
      textAt(one, "thinking"),
      textAt(one, "signature") ?? "",
      textAt(one, "data") ?? "",
      textAt(one, "maker")
    )
  )
}
