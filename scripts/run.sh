# Runs programs so that none of them outlives an interrupted script. Sourced, not run.
#
#   run COMMAND...       one that cleans up behind itself when it is ended
#   run_build COMMAND... one that leaves its children to themselves then, as cargo does its compilers
#
# bash hears no signal while a command is in the foreground, but `wait` ends at once. What is called
# without these two, such as an installation of packages, is let finish before the script ends.

running=
scratch=

trap 'interrupted 1' HUP
trap 'interrupted 2' INT
trap 'interrupted 15' TERM
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

interrupted() {
    trap '' HUP INT TERM
    [ -z "${!:-}" ] || case $running in
    program) while kill -TERM "$!"; do sleep 0.05; done 2>/dev/null ;;
    # It may not be the head of its group yet.
    build) while lives; do kill -TERM -- "-$!" || kill -TERM "$!"; sleep 0.05; done 2>/dev/null ;;
    esac
    exit $((128 + $1))
}

# Is the build or anything of its group still there? Its children may stay as zombies where nobody
# collects them, and to `kill` those live.
lives() {
    local file line
    kill -0 "$!" 2>/dev/null && return 0
    for file in /proc/[0-9]*/stat; do
        { read -r line <"$file"; } 2>/dev/null || continue
        [[ ${line##*) } =~ ^[^ZX]\ [0-9]+\ $!\  ]] && return 0
    done
    return 1
}

run() {
    local code=0
    running=program
    # bash lets what is in the background ignore the keyboard.
    env --default-signal=INT,QUIT "$@" &
    wait $! || code=$?
    running=
    return $code
}

# A killed compiler leaves its temporary files: they have a directory that is removed at the end.
run_build() {
    local code=0
    scratch=$PWD/target/building-$$
    mkdir -p "$scratch"
    running=build
    TMPDIR=$scratch setsid "$@" &
    wait $! || code=$?
    running=
    return $code
}
