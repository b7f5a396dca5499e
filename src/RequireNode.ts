/** Imported first by the package's entry: on a Node that is too old, the import fails with one line that says so. */
import { unsupported } from "./NodeVersion.ts"

if (unsupported !== undefined) throw new Error(`troupe: ${unsupported}`)
