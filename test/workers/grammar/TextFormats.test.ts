import { assert, describe, it } from "@effect/vitest"
import type { EngineFailure, OutputFormat } from "../../../src/domain/Job.ts"
import { gbnfOf, grammarOf, makeMatcher } from "../../../src/workers/grammar/JsonGrammar.ts"

const accepts = (format: OutputFormat, text: string): boolean => {
  const matcher = makeMatcher(grammarOf(format))
  matcher.push(text)
  return matcher.isComplete()
}

const grammar = (text: string): OutputFormat => ({ type: "grammar", grammar: text })

const refusal = (format: OutputFormat): Extract<EngineFailure, { readonly kind: "invalid_request" }> => {
  try {
    grammarOf(format)
  } catch (cause) {
    return cause as Extract<EngineFailure, { readonly kind: "invalid_request" }>
  }
  return assert.fail("The format was accepted.")
}

const json = String.raw`
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
`

const arithmetic = String.raw`root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*`

const chess = String.raw`root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?`

describe("the grammar of a regular expression", () => {
  it.each<[string, string, boolean]>([
    ["\\d{3}-\\d{4}", "555-1234", true],
    ["\\d{3}-\\d{4}", "x555-1234", false],
    ["\\d{3}-\\d{4}", "555-12345", false],
    ["yes|no", "no", true],
    ["yes|no", "yes, it is", false],
    ["é+", "éé", true],
    [".*", "", true]
  ])("%s with %j: %s", (pattern, text, isAccepted) => {
    assert.strictEqual(accepts({ type: "regex", pattern }, text), isAccepted)
  })

  it.each<[string, RegExp]>([
    ["a(", /not a valid ECMAScript regular expression/],
    ["a)(?:b", /not a valid ECMAScript regular expression/],
    ["(?=a)b", /looks ahead/],
    ["a\\1", /\\1/],
    ["(?:a{500}){500}", /too many states/],
    ["[^\\s\\S]", /matches no text/]
  ])("refuses %s", (pattern, message) => {
    const found = refusal({ type: "regex", pattern })
    assert.strictEqual(found.path, "format.pattern")
    assert.match(found.message, message)
  })
})

describe("the grammar of choices", () => {
  const choices = ["positive", "positive, mostly", "negative", "neu\"tral", "é", "positive"]

  it("accepts each of them and nothing else, in one parse", () => {
    for (const choice of choices) assert.isTrue(accepts({ type: "choice", choices }, choice))
    for (const other of ["", "posit", "positive, ", "neutral"]) {
      assert.isFalse(accepts({ type: "choice", choices }, other))
    }
  })

  it("accepts an empty text only if it is one of them", () => {
    assert.isTrue(accepts({ type: "choice", choices: ["", "a"] }, ""))
  })
})

describe("a grammar in GBNF", () => {
  it.each<[string, string, string, boolean]>([
    ["of JSON", json, "{\"a\": [1, -2.5e3, true], \"b\": {\"c\": \"x\\n\"}}", true],
    ["of JSON", json, "{\"a\": [1,}", false],
    ["of arithmetic", arithmetic, "(a +12) *b= 5\n", true],
    ["of arithmetic", arithmetic, "a + = 5\n", false],
    ["of chess", chess, "1. e4 e5\n2. Nf3 Nc6\n", true],
    ["with repetitions", "root ::= \"a\"{2} [b-d]{1,2} (\"e\" | \"f\"){2,} .?", "aabfez", true],
    ["with repetitions", "root ::= \"a\"{2} [b-d]{1,2} (\"e\" | \"f\"){2,} .?", "aabe", false],
    ["with a repetition up to a number", "root ::= \"a\"{,2}", "aa", true],
    ["with escapes", String.raw`root ::= "\x41\u00e9\U0001F600" [\]\[\n]`, "Aé😀\n", true],
    ["with a negated set", "root ::= [^a-c-]+", "xyz", true],
    ["with a negated set", "root ::= [^a-c-]+", "x-", false],
    ["with a rule before its definition", "root ::= my_rule\n\nmy_rule ::= \"a\" # comment", "a", true]
  ])("%s", (_, source, text, isAccepted) => {
    assert.strictEqual(accepts(grammar(source), text), isAccepted)
    assert.match(gbnfOf(grammarOf(grammar(source))), /^root ::= /)
  })

  it.each<[string, string, RegExp]>([
    ["without a root", "a ::= \"b\"", /no rule `root`/],
    ["that is empty", "", /no rule `root`/],
    ["with an undefined rule", "root ::= \"a\" |\n  thing", /line 2, column 3: the rule thing is not defined/],
    ["with a rule twice", "root ::= \"a\"\nroot ::= \"b\"", /line 2, column 1: the rule root is defined twice/],
    ["with an open text", "root ::= \"a", /line 1, column 12: the grammar ends within/],
    ["with an open group", "root ::= (\"a\"", /line 1, column 10: this group has no `\)`/],
    ["without ::=", "root = \"a\"", /line 1, column 6: expected `::=`/],
    ["with an unknown escape", "root ::= \"\\q\"", /line 1, column 11: unknown escape/],
    ["with an empty set", "root ::= []", /the set is empty/],
    ["with a reversed range", "root ::= [z-a]", /wrong order/],
    ["with a repetition of nothing", "root ::= *", /expected an element before the repetition/],
    ["with too many repetitions", "root ::= \"a\"{3000}", /more than 2000 repetitions/],
    ["with a token", "root ::= <think>", /references to tokens/],
    ["with a left-recursive rule", "root ::= root \"a\" | \"a\"", /left-recursive rule: root can begin with itself/],
    ["with an indirect one", "root ::= a\na ::= \"\"? b\nb ::= a \"x\" | \"y\"", /empty text|left-recursive/],
    ["with an endless repetition of nothing", "root ::= (\"a\"?)*", /repeats an element that can be empty/],
    ["without an end", "root ::= \"a\" root", /no text of finite length/],
    [
      "that doubles its parses",
      "root ::= \"x\" root \"a\" | \"x\" root \"b\" | \"y\"",
      /recursive rule .* \(near root\)/
    ],
    ["that does so over options", "root ::= \"x\" root? \"b\"? root? \"c\" | \"y\"", /recursive rule/],
    ["with too many symbols", `root ::= ${"[a-c]{0,2000} ".repeat(10)}`, /50,000 symbols/],
    ["that is too long", `root ::= "${"a".repeat(60_000)}"`, /50,000 characters/],
    ["with deep groups", `root ::= ${"(".repeat(200)}"a"${")".repeat(200)}`, /nested deeper than 100/]
  ])("%s is refused", (_, source, message) => {
    const found = refusal(grammar(source))
    assert.strictEqual(found.kind, "invalid_request")
    assert.strictEqual(found.path, "format.grammar")
    assert.match(found.message, message)
  })

  it("whose parses multiply without recursion is refused", () => {
    const levels = Array.from({ length: 30 }, (_, level) => `r${level} ::= r${level + 1} "a" | r${level + 1} "b"`)
    const found = refusal(grammar(["root ::= r0", ...levels, "r30 ::= \"x\""].join("\n")))
    assert.match(found.message, /more than 1000 ways at once/)
  })

  it("whose rules depend on each other in a long chain is refused in time", () => {
    const names = Array.from({ length: 1_100 }, (_, index) => `r${index}`)
    const rules = names.map((name, index) => `${name} ::= "${name}"${index === 0 ? "" : ` | r${index - 1} "x"`}`)
    const found = refusal(grammar([`root ::= ${names.join(" | ")}`, ...rules].join("\n")))
    assert.match(found.message, /depend on each other|ways at once/)
  })

  it("whose repetitions are long and unambiguous is accepted", () => {
    assert.isTrue(accepts(grammar("root ::= [a-z]{0,500} \"!\""), `${"a".repeat(500)}!`))
  })
})
