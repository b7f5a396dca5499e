/** A button whose action has to be confirmed in a dialog that says what will happen. */
import { useRef } from "preact/hooks"
import { readOnlyTitle } from "./ReadOnly.tsx"

interface ConfirmProps {
  readonly label: string
  /** What the action is applied to, for screen readers: buttons of a table have equal labels. */
  readonly of?: string
  readonly question: string
  readonly action: () => Promise<unknown>
  readonly isDangerous?: boolean
  readonly disabled?: boolean
}

export const Confirm = ({ action, disabled = false, isDangerous = false, label, of, question }: ConfirmProps) => {
  const dialog = useRef<HTMLDialogElement>(null)
  const confirm = () => {
    dialog.current!.close()
    void action()
  }
  return (
    <>
      <button
        type="button"
        class={isDangerous ? "danger" : undefined}
        disabled={disabled}
        title={readOnlyTitle()}
        aria-label={of === undefined ? undefined : `${label} ${of}`}
        onClick={() => dialog.current!.showModal()}
      >
        {label}
      </button>
      <dialog ref={dialog} aria-label={`${label}${of === undefined ? "" : ` ${of}`}?`}>
        <p>{question}</p>
        <div class="tools">
          <button type="button" class={isDangerous ? "danger" : "primary"} onClick={confirm}>{label}</button>
          <button type="button" onClick={() => dialog.current!.close()}>Cancel</button>
        </div>
      </dialog>
    </>
  )
}
