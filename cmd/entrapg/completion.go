package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
)

var completionCommand = &command{
	name: "completion", takes: "bash|zsh|fish",
	summary: "write what a shell needs to complete commands and flags",
	example: "source <(entrapg completion bash)\nentrapg completion fish > ~/.config/fish/completions/entrapg.fish",
	about:   "Put the first line into ~/.bashrc, or, with zsh in the place of bash, after compinit into ~/.zshrc.",
	setup: func(*flag.FlagSet) runner {
		return func(_ context.Context, args []string, std streams) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return wrongUse("completion: name a shell: bash, zsh or fish")
			}
			std.out.printf("%s", shells[args[0]]())
			return nil
		}
	},
}

var shells = map[string]func() string{"bash": bash, "zsh": zsh, "fish": fish}

// words is what can stand as argument of a command.
func (c *command) words() []string {
	switch c.name {
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "help":
		return commandNames()
	default:
		return nil
	}
}

func commandNames() []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}

// fileFlags are those that take a file, of all commands.
func fileFlags() []string {
	var names []string
	for _, c := range commands {
		for _, f := range c.flags() {
			if name := "--" + f.name; f.value == "FILE" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func bash() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for entrapg
_entrapg() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words i
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s' -- "$current"))
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		[[ $command == exec && ${COMP_WORDS[i]} == -- ]] || continue
		((COMP_CWORD == i + 1)) && COMPREPLY=($(compgen -c -- "$current")) || COMPREPLY=($(compgen -f -- "$current"))
		return
	done
	case $previous in
	%s) COMPREPLY=($(compgen -f -- "$current")); return ;;
	esac
	case $command in
`, strings.Join(commandNames(), " "), strings.Join(fileFlags(), "|"))
	for _, c := range commands {
		words := c.words()
		for _, f := range c.flags() {
			words = append(words, "--"+f.name)
		}
		if c == execCommand {
			words = append(words, "--")
		}
		fmt.Fprintf(&b, "\t%s) words='%s' ;;\n", c.name, strings.Join(append(words, "--help"), " "))
	}
	b.WriteString(`	esac
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _entrapg entrapg
`)
	return b.String()
}

func zsh() string {
	quote := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`)
	var b strings.Builder
	b.WriteString("#compdef entrapg\n# zsh completion for entrapg\n_entrapg() {\n\tlocal -a commands\n\tcommands=(\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\t\t'%s:%s'\n", c.name, quote.Replace(c.summary))
	}
	b.WriteString("\t)\n\tif ((CURRENT == 2)); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n" +
		"\tlocal command=$words[2]\n\tshift words\n\t((CURRENT--))\n\tcase $command in\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments '--help[how to use it]'", c.name)
		for _, f := range c.flags() {
			fmt.Fprintf(&b, " \\\n\t\t\t'*--%s[%s]", f.name, quote.Replace(f.usage))
			switch f.value {
			case "":
				b.WriteString("'")
			case "FILE":
				b.WriteString(":file:_files'")
			default:
				b.WriteString(":" + strings.ToLower(f.value) + ": '")
			}
		}
		switch words := c.words(); {
		case c == execCommand:
			b.WriteString(" \\\n\t\t\t'*:::command:_normal'")
		case words != nil:
			b.WriteString(" \\\n\t\t\t'1:which:(" + strings.Join(words, " ") + ")'")
		}
		b.WriteString("\n\t\t;;\n")
	}
	b.WriteString("\tesac\n}\ncompdef _entrapg entrapg\n")
	return b.String()
}

func fish() string {
	quote := strings.NewReplacer(`\`, `\\`, "'", `\'`)
	var b strings.Builder
	b.WriteString("# fish completion for entrapg\ncomplete -c entrapg -f\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c entrapg -n __fish_use_subcommand -a %s -d '%s'\n", c.name, quote.Replace(c.summary))
	}
	for _, c := range commands {
		within := fmt.Sprintf("complete -c entrapg -n '__fish_seen_subcommand_from %s'", c.name)
		for _, f := range c.flags() {
			fmt.Fprintf(&b, "%s -l %s -d '%s'", within, f.name, quote.Replace(f.usage))
			switch f.value {
			case "":
			case "FILE":
				b.WriteString(" -r -F")
			default:
				b.WriteString(" -x")
			}
			b.WriteString("\n")
		}
		if words := c.words(); words != nil {
			fmt.Fprintf(&b, "%s -a '%s'\n", within, strings.Join(words, " "))
		}
		if c == execCommand {
			fmt.Fprintf(&b, "%s -a '(__fish_complete_subcommand)'\n", within)
		}
	}
	return b.String()
}
