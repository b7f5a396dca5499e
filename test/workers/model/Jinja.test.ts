import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { makeChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"
import { parseJinja } from "../../../src/workers/model/Jinja.ts"
import { OverBudget } from "../../../src/workers/model/JinjaValues.ts"

const render = (source: string, variables: Readonly<Record<string, unknown>> = {}): string =>
  parseJinja(source).render(variables)

const thrownBy = (run: () => unknown): unknown => {
  try {
    run()
  } catch (cause) {
    return cause
  }
  return undefined
}

/** The output of Python's Jinja 3.1, except for a map or list in a text, which is JSON here. */
const printed: ReadonlyArray<readonly [source: string, text: string]> = [
  ["{{ {0: 'a', 512: 'b'}[512] }}", "b"],
  ["{% for k, v in {512: 'b', 64: 'a'} | dictsort %}{{ k + 1 }}{{ v }} {% endfor %}", "65a 513b "],
  ["{% for a, b in [(1, 2), (3, 4)] %}{{ a }}-{{ b }} {% endfor %}", "1-2 3-4 "],
  ["{% for x in unknown %}x{% endfor %}!", "!"],
  ["{% for c in 'abc' %}{{ c }}.{% endfor %}", "a.b.c."],
  ["{{ 'a' + unknown + 'b' }}", "ab"],
  ["{{ unknown | length }}{{ unknown | trim }}{{ unknown | join(',') }}", "0"],
  ["{{ none | selectattr('type') | list | length }}", "0"],
  ["{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue"],
  ["{{ true }} {{ 1.0 }} {{ 2 ** 3 }}", "True 1.0 8"],
  ["{{ {'a': [1, none, true], 'b': 'it\\'s'} | string }}", "{'a': [1, None, True], 'b': \"it's\"}"],
  ["{{ (1, 'x') | string }}", "(1, 'x')"],
  ["{{ [3, 1, 2] | min }}{{ [3, 1, 2] | max }}", "13"],
  ["{{ [1, 'a', true, {'k': 1}] | join(',') }}", "1,a,True,{\"k\": 1}"],
  [
    "{{ [] == [] }} {{ {'a': [1]} == {'a': [1]} }} {{ 1 == '1' }} {{ '' == 0 }} {{ none == unknown }}",
    "True True False False False"
  ],
  ["{{ {'a': 1} in [{'a': 1}] }} {{ 2 in {2: 'x'} }} {{ 'z' not in {'a': 1} }}", "True True True"],
  ["{{ '\\nx y\\n'.strip('\\n') }}|{{ '--a-'.lstrip('-') }}|{{ ' a '.rstrip() }}", "x y|a-| a"],
  ["{{ 'a,b,c'.split(',', 1) | join('+') }}", "a+b,c"],
  ["{{ 'a b'.replace(' ', '_') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ 'x.y' | replace('.', '-') }}", "a_bbbax-y"],
  ["{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.gguf'.removesuffix('.gguf') }}", "xx"],
  ["{{ '{} of {1}'.format(1, 2) }} {{ 'banana'.count('an') }} {{ 'banana'.find('nan') }}", "1 of 2 2 2"],
  ["{% set l = [1, 2] %}{% set _ = l.append(3) %}{{ l.pop(0) }}{{ l }}", "1[2, 3]"],
  [
    "{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{{ d.pop('a') }}{{ d }}{{ d.get('x', 'y') }}",
    "1{\"b\": 2}y"
  ],
  ["{{ range(3) | join }} {{ range(1, 3) | join }} {{ range(3, 0, -1) | join }}", "012 12 321"],
  ["{{ 'items' in {'items': 1} }}{{ {'items': 1}.items }}", "True1"]
]

/** Each would take seconds or gigabytes without a limit. */
const hostile: ReadonlyArray<string> = [
  "{{ range(10 ** 9) | length }}",
  "{% for i in range(10 ** 9) %}{% endfor %}",
  "{% for a in range(3000) %}{% for b in range(3000) %}x{% endfor %}{% endfor %}",
  "{% macro a(n) %}{% if n > 0 %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
  "{% set n = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
  "{% set n = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | string }}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ '' ~ n.l }}",
  "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l == n.l }}",
  "{% set s = range(100000) | join %}{{ s.replace('1', s) }}",
  "{% set s = range(100000) | join %}{{ s | replace('1', s) }}",
  "{% set s = range(100000) | join %}{{ range(10000) | join(s) }}",
  "{% for i in range(100000) %}{{ (range(100000) | join).split('1') | length }}{% endfor %}",
  "{% for i in range(100000) %}{% set x = (range(1000) | join).split() %}{% for c in range(100) | join %}{% endfor %}{% endfor %}"
]

describe("Jinja", () => {
  for (const [source, text] of printed) {
    it(`prints ${source} as ${text}`, () => {
      assert.strictEqual(render(source), text)
    })
  }

  for (const source of hostile) {
    it(`ends ${source.slice(0, 80)} at its work budget`, () => {
      assert.instanceOf(thrownBy(() => render(source)), OverBudget)
    })
  }

  it("fails for an indentation that would take gigabytes", () => {
    assert.match(String(thrownBy(() => render("{{ 'a\\nb' | indent(10 ** 9) }}"))), /indentation/)
    assert.match(String(thrownBy(() => render("{{ {'a': 1} | tojson(indent=10 ** 9) }}"))), /indentation/)
  })

  it("refuses a model whose template exceeds its work budget, by name", () => {
    const failure = thrownBy(() =>
      makeChatTemplate({ name: "bad.gguf", source: "{{ messages }}{{ range(10 ** 9) }}", control: [] })
    )
    assert.deepStrictEqual(failure, {
      kind: "load_failed",
      message: "The chat template of bad.gguf exceeds its work budget: it takes more than 3000000 steps. Use a model " +
        "file with another template."
    })
  })

  it("refuses messages that make a template exceed its work budget, by name", () => {
    const source = "{{ messages }}{% if messages[0].content == 'loop' %}{{ range(10 ** 9) }}{% endif %}"
    const template = makeChatTemplate({ name: "bad.gguf", source, control: [] })
    if ("problem" in template) return assert.fail(template.problem)
    assert.deepStrictEqual(thrownBy(() => template.render([{ role: "user", content: "loop" }])), {
      kind: "invalid_request",
      path: "messages",
      message:
        "The chat template of bad.gguf exceeds its work budget: it takes more than 3000000 steps. Send fewer or " +
        "shorter messages."
    })
  })

  it("renders a conversation of thousands of messages within the budget", () => {
    const messages = Array.from({ length: 5000 }, (_, at) => ({ role: "user", content: `Message ${at}. `.repeat(20) }))
    const source = "{% for m in messages %}{% if m.role == 'user' and loop.index > 0 %}<|{{ m.role }}|>" +
      "{{ m['content'] | trim }}{% else %}{{ '' + m.content }}{% endif %}{% endfor %}"
    assert.isAbove(render(source, { messages }).length, 1_000_000)
  })
})
