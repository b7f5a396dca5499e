/** The form for the admin key, and what is shown until the service has said whether it needs one. */
import { useSignal } from "@preact/signals"
import { useEffect, useRef } from "preact/hooks"
import { messageOf, session, signIn } from "../session.ts"
import { ThemeChoice } from "./ThemeChoice.tsx"

const Brand = () => <p class="brand">Troupe</p>

export const Starting = () => (
  <main class="sign-in">
    <Brand />
    <h1 tabIndex={-1}>{session.value.phase === "starting" ? "Connecting" : "No connection"}</h1>
    <p role="status">
      {session.value.notice ?? "Asking the service…"}
      {session.value.phase === "unreachable" && " The page tries again every 2 s."}
    </p>
  </main>
)

/** The fields have the names that password managers look for. */
const KeyField = ({ isWrong }: { readonly isWrong: boolean }) => {
  const field = useRef<HTMLInputElement>(null)
  useEffect(() => field.current?.focus(), [])
  return (
    <>
      <input
        class="visually-hidden"
        name="username"
        autocomplete="username"
        value="troupe"
        tabIndex={-1}
        aria-hidden="true"
        readOnly
      />
      <label for="key">Admin key</label>
      <input
        ref={field}
        id="key"
        name="key"
        type="password"
        autocomplete="current-password"
        spellcheck={false}
        required
        aria-invalid={isWrong}
        aria-describedby="key-problem key-help"
      />
    </>
  )
}

export const SignIn = () => {
  const problem = useSignal<string | undefined>(undefined)
  const isBusy = useSignal(false)
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    const given = new FormData(event.currentTarget as HTMLFormElement).get("key") as string
    isBusy.value = true
    problem.value = undefined
    try {
      await signIn(given.trim())
    } catch (error) {
      problem.value = messageOf(error)
    }
    isBusy.value = false
  }
  const shown = problem.value ?? session.value.notice
  return (
    <main class="sign-in">
      <Brand />
      <h1 tabIndex={-1}>Sign in</h1>
      <form onSubmit={(event) => void submit(event)}>
        <KeyField isWrong={problem.value !== undefined} />
        <p id="key-problem" class="problem" role="alert">{shown}</p>
        <button class="primary" type="submit" disabled={isBusy.value}>{isBusy.value ? "Checking…" : "Sign in"}</button>
        <p id="key-help" class="muted">
          An admin key (<code>troupe keys create NAME --admin</code>) or the token of{" "}
          <code>server.admin.token</code>. It stays in the memory of this page: not in the URL, and in no storage. A
          reload asks for it again; your browser's password manager can fill it in.
        </p>
      </form>
      <ThemeChoice />
    </main>
  )
}
