# Questions with choices for vqlm-infer --choices, prompted as lm-evaluation-harness 3326c54 prompts them, from rows: of the
# data set as Hugging Face has it, of its first release, or of LLM-Adapters' instruction files.  $task names it.

# Python's str.strip, and HellaSwag's preprocessing.
def strip: sub("^\\s+"; "") | sub("\\s+$"; "");
def wikihow: strip | split(" [title]") | join(". ") | gsub("\\[.*?\\]"; "") | gsub("  "; " ");
def capitalize: (.[:1] | ascii_upcase) + (.[1:] | ascii_downcase);

# Continuations are the choices behind a space.
def choices(list): [list[] | " " + .];

# "A", "B"... or "1", "2"...
def letter: strip | {"A": 0, "B": 1, "C": 2, "D": 3, "E": 4, "1": 0, "2": 1, "3": 2, "4": 3, "5": 4}[.];

# What stands between the first of one mark and the next of another.  (jq 1.6's index counts bytes, its slices characters.)
def after(mark): split(mark) | .[1:] | join(mark);
def between(from; to): after(from) | split(to)[0];

# "WORD1: a WORD2: b ...": the texts behind each mark, which sep parts.
def marked(word; sep):
	def from($i): (sep + word + "\($i): ") as $mark
		| if contains($mark) then split($mark)[0], (after($mark) | from($i + 1)) else . end;
	[after(word + "1: ") | from(2)];

# The place of "answer3", "solution1", "option2".
def place: capture("(?<n>[0-9])$").n | tonumber - 1;

def arc:
	if .instruction then
		{q: (.instruction | between("to the question: "; "\n\nAnswer1: ")),
			c: (.instruction | ("Answer1: " + between("\n\nAnswer1: "; "\n\nAnswer format: ")) | marked("Answer"; " ")),
			a: (.answer | place)}
	elif (.question | type) == "object" then {q: .question.stem, c: [.question.choices[].text], a: (.answerKey | letter)}
	else {q: (.question // .question_stem), c: .choices.text, a: (.answerKey | letter)} end;

def piqa:
	if .instruction then
		{q: (.instruction | between("to the question: "; "\n\nSolution1: ")),
			c: (.instruction | ("Solution1: " + between("\n\nSolution1: "; "\n\nAnswer format: ")) | marked("Solution"; "\n\n")),
			a: (.answer | place)}
	else {q: .goal, c: [.sol1, .sol2], a: .label} end;

def winogrande:
	if .instruction then
		{s: (.instruction | between("the given sentence: "; "\n\nOption1: ")),
			o: (.instruction | ("Option1: " + between("\n\nOption1: "; " Answer format: ")) | marked("Option"; " ")),
			a: (.answer | place)}
	else {s: .sentence, o: [.option1, .option2], a: (.answer | tonumber - 1)} end;

# The first blank is filled in, what follows it is scored.
def filled:
	(.s | split("_")[0]) as $before | (.s | after("_") | strip) as $after
	| {context: [.o[] | $before + .], choices: [.o[] | " " + $after], answer: .a};

def question:
	if $task == "boolq" then
		{context: "\(.passage)\nQuestion: \(.question)?\nAnswer:", choices: [" no", " yes"],
			answer: ({"true": 1, "false": 0, "1": 1, "0": 0}[.label // .answer | tostring])}
	elif $task == "boolq-no-passage" then
		{context: "Question: \(.instruction | between("question: "; "?\n\nAnswer format: "))?\nAnswer:", choices: [" no", " yes"],
			answer: ({"true": 1, "false": 0}[.answer])}
	elif $task == "piqa" then piqa | {context: "Question: \(.q)\nAnswer:", choices: choices(.c), answer: .a}
	elif $task == "hellaswag" then
		{context: ("\(.activity_label): \(.ctx_a) \(.ctx_b | capitalize)" | wikihow),
			choices: choices([.endings[] | wikihow]), answer: (.label | tonumber)}
	elif $task == "winogrande" then winogrande | filled
	elif $task == "openbookqa" then arc | {context: .q, choices: choices(.c), answer: .a}
	else arc | {context: "Question: \(.q)\nAnswer:", choices: choices(.c), answer: .a} end;

# A row that lacks something is named, not passed on.
def checked($i):
	([try question catch null][0] // {}) as $q # collected at once: jq 1.6 would catch the error below, too
	| if ($q.answer | type) != "number" or ($q.answer >= ($q.choices | length)) or any($q.choices[]; length < 2)
			or any([$q.context] | flatten[]; length == 0) then
		error("row \($i) is no question of \($task): \(tojson | .[:200])")
	else $q end;

foreach (inputs | if type == "array" then .[] else . end) as $row (-1; . + 1;
	. as $i | $row | checked($i) | {id: "\($task)/\($i)", task: $task} + .)
