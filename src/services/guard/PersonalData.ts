/**
 * Finds personal data and secrets in texts: e-mail addresses, phone numbers, numbers of payment cards, IBANs and API keys.
 * Pure.
 *
 * **Details**
 *
 * Numbers of cards pass the Luhn check and have the prefix and the length of an issuer; IBANs have the length of their
 * country and pass the check of ISO 7064 (modulus 97); keys have a prefix that their issuer documents. Phone numbers are
 * those with a country code, those of North America, and national ones that begin with 0 and are grouped. Digits of an IBAN
 * are neither a card nor a phone number, and those of a card are no phone number, whatever the modes of these rules are.
 *
 * **Gotchas**
 *
 * The time of a search grows with the length of the text only: what surrounds an `@` or follows a prefix is read within
 * a fixed length.
 */
import type { dataRules } from "../../domain/GuardRule.ts"
import type { Find, Search, Span } from "./AttackPatterns.ts"
import { findAll, findersOf, matching, nothing } from "./AttackPatterns.ts"
import type { Keywords } from "./KeywordAutomaton.ts"
import { combine } from "./KeywordAutomaton.ts"

/** The longest local part and domain of RFC 5321. */
const longestLocal = 64
const longestDomain = 255

const isLocal = (code: number): boolean =>
  isAlphanumeric(code) || code > 0x7f || "!#$%&'*+-/=?^_`{|}~.".includes(String.fromCharCode(code))

const isAlphanumeric = (code: number): boolean => isDigit(code) || (code >= 0x41 && code <= 0x5a) || isLower(code)

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39

const isLower = (code: number): boolean => code >= 0x61 && code <= 0x7a

const domain = /^[\p{L}\d](?:[\p{L}\d-]{0,62})(?:\.[\p{L}\d][\p{L}\d-]{0,62}){1,8}/u

/** The address around an `@`. */
const addressAt = (text: string, at: number): Span | undefined => {
  let from = at
  while (from > 0 && at - from < longestLocal && isLocal(text.charCodeAt(from - 1))) from--
  // A quote, a slash or a dot before an address is not a part of it.
  while (from < at && !isAlphanumeric(text.charCodeAt(from)) && text.charCodeAt(from) <= 0x7f) from++
  if (from === at) return undefined
  const found = domain.exec(text.slice(at + 1, at + 1 + longestDomain))?.[0]
  return found === undefined ? undefined : { from, to: at + 1 + found.length }
}

const emails: Find = (text) => {
  let found: Array<Span> | undefined
  for (let at = text.indexOf("@"); at >= 0; at = text.indexOf("@", at + 1)) {
    const span = addressAt(text, at)
    if (span !== undefined) (found ??= []).push(span)
  }
  return found ?? nothing
}

const phoneSeparators: Keywords = [" ", "-", "/"]

const phone: ReadonlyArray<Search> = [
  matching([/(?<![\w+])\+\d(?:[ ()./-]{0,3}\d){7,14}(?!\d)/g], ["+0"]),
  matching(
    [/(?<![\w.-])(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])/g],
    combine(["000"], [" ", ".", "-"], ["0000"])
  ),
  matching(
    [
      /(?<![\w.,:+/-])0\d{1,4}[ /-]{1,3}\d{3,4}(?:[ -]?\d{2,4}){1,3}(?![\w.-])/g,
      /(?<![\w.,:+/-])0\d(?:[ .-]\d{2}){4}(?![\w.-])/g
    ],
    [
      ...combine(["0"], ["", ...phoneSeparators], ["", ...phoneSeparators], phoneSeparators, ["000"]),
      ...combine(["00"], [" ", ".", "-"], ["00"], [" ", ".", "-"], ["00"])
    ]
  )
]

/** Whether the check digit is right (ISO/IEC 7812-1, annex B). */
export const passesLuhn = (digits: string): boolean => {
  let sum = 0
  for (let place = 0; place < digits.length; place++) {
    const digit = digits.charCodeAt(digits.length - 1 - place) - 0x30
    const doubled = place % 2 === 1 ? digit * 2 : digit
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

/** Prefixes and lengths of issuers: Visa, Mastercard, American Express, Discover, JCB, Diners Club, UnionPay. */
const issuers =
  /^(?:4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|35\d{14,17}|3[068]\d{12,17}|62\d{14,17})$/

const isCard = (digits: string): boolean => issuers.test(digits) && passesLuhn(digits)

const separator: Keywords = ["", " ", "-"]

/** The first five digits of a card. */
const cardBegins = combine(["0"], separator, ["0"], separator, ["0"], separator, ["0"], separator, ["0"])

const shortestCard = 13
const longestCard = 19

/** Groups of digits with one space or hyphen between them. */
const digitGroups = /(?<![\w.])\d{1,19}(?:[ -]\d{1,19}){0,18}(?!\w)/g

/** The longest number that begins with a group. */
const cardFrom = (groups: ReadonlyArray<RegExpMatchArray>, first: number): Span | undefined => {
  let digits = ""
  let found: Span | undefined
  for (let index = first; index < groups.length; index++) {
    const group = groups[index]!
    digits += group[0]
    if (digits.length > longestCard) break
    if (digits.length >= shortestCard && isCard(digits)) {
      found = { from: groups[first]!.index!, to: group.index! + group[0].length }
    }
  }
  return found
}

const cardsIn = (text: string, offset: number): ReadonlyArray<Span> => {
  const groups = [...text.matchAll(/\d+/g)]
  const found: Array<Span> = []
  let end = 0
  for (const [index, group] of groups.entries()) {
    const span = group.index < end ? undefined : cardFrom(groups, index)
    if (span === undefined) continue
    end = span.to
    found.push({ from: span.from + offset, to: span.to + offset })
  }
  return found
}

const cards: Find = (text) => {
  let found: Array<Span> | undefined
  digitGroups.lastIndex = 0
  for (let match = digitGroups.exec(text); match !== null; match = digitGroups.exec(text)) {
    if (match[0].length < shortestCard) continue
    for (const span of cardsIn(match[0], match.index)) (found ??= []).push(span)
  }
  return found ?? nothing
}

/** Characters of an IBAN by country (ISO 13616 registry). */
const ibanLengths: Readonly<Record<string, number>> = Object.fromEntries(
  ("AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 " +
    "FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 " +
    "LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 " +
    "RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20")
    .split(" ").map((entry) => [entry.slice(0, 2), Number(entry.slice(2))])
)

const ibanStart = /(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}(?= ?[A-Za-z0-9]{2})/g

/** Whether the check digits are right: letters count from 10, and the first four characters stand at the end. */
export const passesMod97 = (iban: string): boolean => {
  let rest = 0
  for (const character of iban.slice(4) + iban.slice(0, 4)) {
    const value = Number.parseInt(character, 36)
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97
  }
  return rest === 1
}

/** The characters of an IBAN from a place on, which may be in groups, and where they end. */
const readIban = (text: string, from: number, length: number) => {
  let iban = ""
  let at = from
  for (; iban.length < length && at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (isAlphanumeric(code)) iban += text[at]!
    else if (code !== 0x20 || text.charCodeAt(at - 1) === 0x20) break
  }
  return { iban: iban.toUpperCase(), to: at }
}

const ibans: Find = (text) => {
  let found: Array<Span> | undefined
  ibanStart.lastIndex = 0
  for (let match = ibanStart.exec(text); match !== null; match = ibanStart.exec(text)) {
    const length = ibanLengths[match[1]!.toUpperCase()]
    if (length === undefined) continue
    const { iban, to } = readIban(text, match.index, length)
    if (iban.length !== length || isAlphanumeric(text.charCodeAt(to)) || !passesMod97(iban)) continue
    ;(found ??= []).push({ from: match.index, to })
    ibanStart.lastIndex = to
  }
  return found ?? nothing
}

const isKeyCharacter = (code: number): boolean => isAlphanumeric(code) || "-_.~+/=".includes(String.fromCharCode(code))

const longestKey = 8_192

/** A key to its end. */
const wholeKey = (text: string, { from, to: start }: Span): Span => {
  let to = start
  while (to - from < longestKey && to < text.length && isKeyCharacter(text.charCodeAt(to))) to++
  // The end of a sentence.
  while (to > start && text.charCodeAt(to - 1) === 0x2e) to--
  return { from, to }
}

const keyBlock = /-----BEGIN [A-Z ]{0,32}PRIVATE KEY( BLOCK)?-----/g
const keyBlockEnd = /-----END [A-Z ]{0,32}PRIVATE KEY( BLOCK)?-----/g

const keyBlocks: Find = (text) => {
  const found: Array<Span> = []
  keyBlock.lastIndex = 0
  for (let match = keyBlock.exec(text); match !== null; match = keyBlock.exec(text)) {
    keyBlockEnd.lastIndex = keyBlock.lastIndex
    const to = keyBlockEnd.exec(text) === null ? text.length : keyBlockEnd.lastIndex
    found.push({ from: match.index, to })
    keyBlock.lastIndex = to
  }
  return found
}

/** Finds keys that begin with a match of the pattern. */
const keys = (pattern: RegExp, needs: Keywords): Search => {
  const starts = findAll([pattern])
  return { find: (text) => starts(text).map((span) => wholeKey(text, span)), needs: [needs], patterns: [pattern] }
}

/** Prefixes that issuers of keys document; the rest of a key follows the match. */
const apiKey: ReadonlyArray<Search> = [
  { find: keyBlocks, needs: [["-----begin "]], patterns: [] },
  keys(
    /\b(?:sk-[\w-]{20}|tk-[A-Za-z0-9]{40}|[srp]k_(?:live|test)_\w{16}|whsec_\w{16}|A[KS]IA[0-9A-Z]{16}|gh[opsur]_\w{36}|github_pat_\w{40}|glpat-[\w-]{20}|xox[abeprs]-[\w-]{10}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30}|npm_[A-Za-z0-9]{36}|gsk_\w{40}|xai-\w{40}|pplx-\w{40}|r8_\w{36}|dop_v1_\w{40})/g,
    "sk-,tk-,k_live_,k_test_,whsec_,akia,asia,gho_,ghp_,ghs_,ghu_,ghr_,github_pat_,glpat-,xox,aiza,hf_,npm_,gsk_,xai-,pplx-,r8_,dop_v1_"
      .split(",")
  ),
  keys(/\beyJ[\w-]{10,2048}\.eyJ[\w-]{10,4096}\.[\w-]{10}/g, [".eyj"]),
  keys(/\b[Bb]earer[ \t]{1,4}[\w.~+/-]{20}/g, ["bearer "])
]

/** The search without what is a part of what others find: digits of an IBAN may look like a phone number. */
const notWithin = (others: ReadonlyArray<Find>) => (search: Search): Search => ({
  ...search,
  find: (text) => {
    const found = search.find(text)
    if (found.length === 0) return found
    const wider = others.flatMap((find) => find(text))
    return wider.length === 0 ? found : found.filter((span) => !wider.some((one) => isWithin(span, one)))
  }
})

const isWithin = (span: Span, { from, to }: Span): boolean =>
  span.from >= from && span.to <= to && span.to - span.from < to - from

type DataRule = typeof dataRules[number]

/** Searches of the rules about personal data. */
export const searches: Readonly<Record<DataRule, ReadonlyArray<Search>>> = {
  apiKey,
  iban: [{ find: ibans, needs: [combine(Object.keys(ibanLengths), ["00"])], patterns: [] }],
  card: [{ find: cards, needs: [cardBegins], patterns: [] }].map(notWithin([ibans])),
  email: [{ find: emails, needs: [["@"]], patterns: [] }],
  phone: phone.map(notWithin([ibans, cards]))
}

/** What the rules about personal data find. */
export const finders = findersOf(searches)
