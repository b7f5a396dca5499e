/** The dashboard: sign-in, the frame around the pages, and the page that the address names. */
import { render } from "preact"
import { Frame } from "./parts/Frame.tsx"
import { SignIn, Starting } from "./parts/SignIn.tsx"
import * as routes from "./route.ts"
import { session, start } from "./session.ts"
import * as theme from "./theme.ts"

const App = () => {
  const { phase } = session.value
  if (phase === "signedIn") return <Frame />
  return phase === "signedOut" ? <SignIn /> : <Starting />
}

theme.follow()
routes.follow()
render(<App />, document.getElementById("app")!)
void start()
