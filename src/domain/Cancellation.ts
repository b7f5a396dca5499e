/** Whether something was cancelled, in one place: circuits, records, metrics, spans and endpoints all go by it. */
import { Cause } from "effect"

/**
 * Any interruption is a cancellation, whatever stands beside it.
 *
 * **Details**
 *
 * An HTTP server interrupts a request whose caller hangs up, and closes its scope with a defect of its own beside the
 * interruption. Finalizers that fail meanwhile add theirs.
 */
export const isCancellation = (cause: Cause.Cause<unknown>): boolean => Cause.hasInterrupts(cause)
