/**
 * The scripts that shells load: each hands the line to `trilith completion suggest` and takes a word
 * and its description per line, separated by a tab; `:files` and `:folders` ask for paths.
 */

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

const bash = `# bash completion of trilith.  Load it with:  source <(trilith completion bash)
_trilith() {
  local word rest
  COMPREPLY=()
  while IFS=$'\\t' read -r word rest; do
    case $word in
      :files) compopt -o default 2>/dev/null ;;
      :folders) compopt -o dirnames 2>/dev/null ;;
      '') ;;
      *) COMPREPLY+=("$word") ;;
    esac
  done < <("\${COMP_WORDS[0]}" completion suggest -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _trilith trilith
complete -F _trilith kubectl-mayastor`;

const zsh = `#compdef trilith kubectl-mayastor
# zsh completion of trilith.  Load it with:  source <(trilith completion zsh)
# or put it in a folder of $fpath as _trilith.
_trilith() {
  local line word rest
  local -a found
  local paths=
  for line in "\${(@f)$(\${words[1]} completion suggest -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    word=\${line%%$'\\t'*}
    rest=\${line#*$'\\t'}
    case $word in
      :files) paths=files ;;
      :folders) paths=folders ;;
      '') ;;
      *) found+=("\${word//:/\\\\:}:$rest") ;;
    esac
  done
  (( \${#found} )) && _describe -t words trilith found
  [[ $paths == files ]] && _files
  [[ $paths == folders ]] && _files -/
  return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _trilith "$@"
else
  compdef _trilith trilith kubectl-mayastor
fi`;

const fish = `# fish completion of trilith.  Load it with:  trilith completion fish | source
function __trilith_complete
    set -l tokens (commandline -opc) (commandline -ct)
    set -l program $tokens[1]
    set -e tokens[1]
    for line in ($program completion suggest -- $tokens 2>/dev/null)
        switch $line
            case ':files*'
                __fish_complete_path (commandline -ct)
            case ':folders*'
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c trilith -f -a '(__trilith_complete)'
complete -c kubectl-mayastor -f -a '(__trilith_complete)'`;

/** The script of each shell. */
export const scripts: Readonly<Record<Shell, string>> = { bash, zsh, fish };
