/** Why the actions of a page are disabled. */
import { session } from "../session.ts"

const reason = "This address is for reading only. To change something, start the service with server.admin.port or " +
  "--admin-port and open the dashboard there, or configure keys."

/** The title of a disabled button; undefined where actions are accepted. */
export const readOnlyTitle = (): string | undefined => session.value.mayChange ? undefined : reason

export const ReadOnly = () => session.value.mayChange ? null : <p class="notice warn">{reason}</p>
