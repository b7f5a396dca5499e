/** A terminal's screen with the features that progress needs: lines wrap at its width and can be overwritten. */

const widthOf = (letter: string): number => letter >= "\u1100" ? 2 : 1

export const makeTerminal = (columns: number) => {
  let lines: Array<string> = [""]
  let column = 0
  const put = (letter: string) => {
    if (letter === "\r" || letter === "\n") {
      column = 0
      if (letter === "\n") lines.push("")
      return
    }
    if (column > 0 && column + widthOf(letter) > terminal.columns) {
      lines.push("")
      column = 0
    }
    lines.push(lines.pop()! + letter)
    column += widthOf(letter)
  }
  const obey = (command: string) => {
    if (command === "[2K") lines[lines.length - 1] = ""
    else if (command === "[2J") lines = [""]
  }
  const terminal = {
    isTTY: true,
    columns,
    write: (text: string): void => {
      const [before, ...parts] = text.split("\x1b")
      for (const letter of before!) put(letter)
      for (const part of parts) {
        const [command] = /^\[[\d;?]*[A-Za-z]|/.exec(part)!
        obey(command)
        for (const letter of part.slice(command.length)) put(letter)
      }
    },
    /** The lines on the screen. */
    lines: (): ReadonlyArray<string> => lines,
    clear: (): void => {
      lines = [""]
      column = 0
    }
  }
  return terminal
}
