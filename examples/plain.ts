/** Without Effect: promises and async iteration. */
import { InferenceError, Troupe } from "troupe"

const troupe = Troupe.start()

const answer = await troupe.generate({
  model: "tiny-chat",
  messages: [{ role: "user", content: "What is 7 + 5?" }],
  temperature: 0
})
console.log(answer.text)

for await (
  const event of troupe.stream({
    model: "tiny-chat",
    messages: [{ role: "user", content: "What color is snow?" }],
    temperature: 0
  })
) {
  if (event.type === "text") process.stdout.write(event.text)
}
console.log()

try {
  await troupe.generate({ model: "no-such-model", messages: [{ role: "user", content: "Hello!" }] })
} catch (error) {
  if (error instanceof InferenceError.InferenceError) console.log(error.reason._tag, error.message)
}

await troupe.close()
