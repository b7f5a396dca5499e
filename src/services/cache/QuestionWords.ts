/**
 * What words of a question mean for `QuestionFacts`: English, and the negations of some other languages. Data.
 *
 * **Gotchas**
 *
 * A word in `facts` makes questions differ in which only one has it: a word too many costs hits, a word too few gives a
 * wrong answer.
 */

const words = (text: string): ReadonlyArray<string> => text.split(/\s+/).filter((word) => word !== "")

/** Words that do not change what is asked. */
export const neutral: ReadonlySet<string> = new Set(words(`
  a about also am an and any anyone are as at be been being but can could dear do does doing explain exactly for give has
  have having hello here hey hi i in is it its just kindly know let me mine my myself of on one please really say show
  simply so tell than thank thanks that the then there these this those to well what which with would you
`))

/** Verbs that ask for an answer at the beginning of a sentence. */
export const requests: ReadonlySet<string> = new Set(words(`
  add build calculate change compare compute convert count create define delete describe design draft explain extract find
  fix generate give help identify implement install list make move name open outline print propose provide read recommend
  remove rename reset return rewrite run show solve sort state suggest summarise summarize tell test translate update use
  write
`))

/** Each line is one fact; its words are alike. */
const alike = `
  no not neither nor nicht kein keine keinen nie ne pas jamais sans nunca sin niet geen ohne non não sem senza
  never
  none nothing nobody nowhere
  without
  cannot
  except excluding besides
  unless
  only
  hardly barely scarcely rarely seldom
  all every each everyone everything always
  some several
  both
  either
  or
  if
  many much
  most maximum max highest largest biggest greatest longest
  least minimum min lowest smallest fewest shortest
  more greater larger bigger higher longer
  less fewer smaller lower shorter
  few
  half
  twice double
  almost nearly
  too
  enough
  again
  he him his himself
  she her hers herself
  they them their theirs
  we us our ours
  your yours yourself
  who whom whose
  when
  where
  why
  how
  was were did had
  will shall
  should ought
  must
  may
  might
  used
  from
  by
  into inside
  onto
  out outside
  up
  down
  off
  over above
  under below beneath
  between
  through
  against
  before prior ahead
  after following
  until till
  since
  during while
  now currently today
  tomorrow
  yesterday
  tonight
  ago
  next upcoming
  last previous
  first
  second
  third
  fourth
  fifth
  current
  recent latest newest
  old oldest earliest
  daily
  weekly
  monthly
  yearly annual annually
  january jan
  february feb
  march
  april apr
  june jun
  july jul
  august aug
  september sep sept
  october oct
  november nov
  december dec
  monday mondays
  tuesday tuesdays
  wednesday wednesdays
  thursday thursdays
  friday fridays
  saturday saturdays
  sunday sundays
  spring
  summer
  autumn fall
  winter
  morning
  noon
  evening
  night midnight
  pm
  seconds secs
  minute minutes
  hour hours
  day days
  week weeks
  month months
  year years
  decade decades
  century centuries
  millimeter millimeters mm
  centimeter centimeters cm
  meter meters metre metres
  kilometer kilometers kilometre kilometres km
  inch inches
  foot feet ft
  yard yards
  mile miles
  gram grams
  kilogram kilograms kilo kilos kg
  pound pounds lb lbs
  ounce ounces oz
  ton tons tonne tonnes
  liter liters litre litres
  gallon gallons
  celsius
  fahrenheit
  kelvin
  percent percentage
  dollar dollars usd
  euro euros eur
  yen jpy
  franc francs chf
  gbp
  byte bytes
  bit bits
  kilobyte kilobytes kb
  megabyte megabytes mb
  gigabyte gigabytes gb
  terabyte terabytes tb
  north northern
  south southern
  east eastern
  west western
  left
  right
  top upper
  bottom
  front
  back
  increase increases increased increasing raise rise grow
  decrease decreases decreased decreasing reduce drop shrink
  add adding
  remove removing delete deleting erase erasing
  enable enabled activate
  disable disabled deactivate
  start starts started starting begin begins
  stop stops stopped stopping end ends finish
  open opens opened opening
  close closes closed closing
  buy buying purchase
  sell selling sells
  win wins winning
  lose loses losing lost
  push
  pull
  encrypt encryption
  decrypt decryption
  encode encoding
  decode decoding
  import importing imports
  export exporting exports
  upload uploading
  download downloading
  install installing
  uninstall uninstalling
  login
  logout
  send sending
  receive receiving
  borrow
  lend
  gain
  loss losses
  profit profits
  input inputs
  output outputs
  good best better
  bad worst worse
  safe
  unsafe dangerous
  legal
  illegal
  possible
  impossible
  valid
  invalid
  correct
  incorrect wrong
  true
  false
  known
  unknown
  able
  unable
  likely
  unlikely
  visible
  invisible hidden
  public
  private
  cheap cheapest cheaper
  expensive
  fast fastest faster quick quickest quicker rapid
  slow slowest slower
  hot hottest hotter
  cold coldest colder
  positive
  negative
  male men man boy
  female women woman girl
  child children
  adult adults
  synonym synonyms
  antonym antonyms
  advantages advantage benefit benefits pros
  disadvantages disadvantage drawback drawbacks cons
  cause causes
  effect effects
`

/** What a word says, by the word. */
export const facts: ReadonlyMap<string, string> = new Map(
  alike.trim().split("\n").flatMap((line) => {
    const all = words(line)
    return all.map((word) => [word, all[0]!] as const)
  })
)

/** Numbers as words. */
export const numbers: ReadonlyMap<string, string> = new Map(
  words(`
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty
  `).map((word, number) => [word, String(number)] as const).concat(
    words("thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion dozen").map(
      (word) => [word, word] as const
    )
  )
)

/** Each line is one content word. */
const same = `
  big large huge
  fix repair
  mistake error
  picture image photo
  movie film
  car automobile
  job occupation
  purpose goal
  method way approach
  difference distinction
`

/** The word that stands for others, by the other. */
export const synonyms: ReadonlyMap<string, string> = new Map(
  same.trim().split("\n").flatMap((line) => {
    const [first, ...others] = words(line)
    return others.map((word) => [word, first!] as const)
  })
)

/** A name, a number or one of these after "to" makes it a direction; before a verb it says nothing. */
export const determiners: ReadonlySet<string> = new Set(
  words("a an the my your his her our their this that these those each every all any")
)
