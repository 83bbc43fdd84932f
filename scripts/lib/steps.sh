# shellcheck shell=bash
# Runs named steps one after the other, each as a process of its own with a bound on its time, and counts.
#
# A step's process reports by a file, $PICKET_STEP_REPORT, one line each: `passed N`, `failed N` (tests it ran),
# `skipped NAME: WHY` (a part it did not run), `reason WHY` (it did not run at all; it exits with 77).
#
# The caller's process sets `run` (a folder for this run) and calls `run_step`, then `close_run`.

not_run_code=77
passed=0
failed=0
skipped=0
summary=()
current=

# For a step: not_run WHY ends it as not run.
not_run() {
    echo "not run: $*"
    echo "reason $*" >>"$PICKET_STEP_REPORT"
    exit "$not_run_code"
}

# run_step NAME BOUND MAY_BE_ABSENT COMMAND...: MAY_BE_ABSENT is `optional` or `required`. Where CI is true, a required
# step that did not run has failed, and so has one with a part that did not run.
run_step() {
    local name=$1 bound=$2 weight=$3
    shift 3
    local log=${run:?}/$name.log report=$run/$name.report began=$SECONDS code=0 line outcome
    : >"$report"
    printf -- '--- %s\n' "$name"
    # In the background, so that a signal reaches this shell at once; `timeout` passes it on to the whole group.
    PICKET_STEP_REPORT=$report timeout --kill-after=30 "$bound" "$@" >"$log" 2>&1 </dev/null &
    current=$!
    [ "${verbose:-no}" = no ] || tail --lines=+1 --follow --sleep-interval=0.2 --pid="$current" "$log" &
    wait "$current" || code=$?
    current=
    wait

    local tests_passed=0 tests_failed=0 reason='' parts=0
    while read -r line; do
        case $line in
        'passed '*) tests_passed=$((tests_passed + ${line#passed })) ;;
        'failed '*) tests_failed=$((tests_failed + ${line#failed })) ;;
        'skipped '*)
            parts=$((parts + 1))
            summary+=("NOT RUN  $name: ${line#skipped }")
            ;;
        'reason '*) reason=${line#reason } ;;
        esac
    done <"$report"

    local strict=no
    [ "${CI:-}" = true ] && [ "$weight" = required ] && strict=yes
    passed=$((passed + tests_passed))
    if [ "$code" = "$not_run_code" ] && [ -n "$reason" ]; then
        if [ "$strict" = yes ]; then
            outcome=FAILED
            failed=$((failed + 1))
        else
            outcome='NOT RUN'
            skipped=$((skipped + 1))
        fi
    elif [ "$code" != 0 ]; then
        outcome=FAILED
        # A step that broke before or beside its tests counts as one failure of its own.
        failed=$((failed + (tests_failed > 0 ? tests_failed : 1)))
        case $code in
        124 | 137) reason="took longer than $bound s" ;;
        *) reason="exit code $code" ;;
        esac
    else
        outcome=ok
        passed=$((passed + 1))
    fi
    if [ "$parts" -gt 0 ]; then
        if [ "$strict" = yes ]; then failed=$((failed + parts)); else skipped=$((skipped + parts)); fi
    fi

    if [ "$outcome" = FAILED ] && [ "${verbose:-no}" = no ]; then
        tail -n 200 "$log"
    fi
    line=$(printf '%-8s %-11s %4d s' "$outcome" "$name" "$((SECONDS - began))")
    [ "$((tests_passed + tests_failed))" = 0 ] || line+="  $tests_passed tests passed, $tests_failed failed"
    [ -z "$reason" ] || line+="  $reason"
    printf '%s\n' "$line"
    summary+=("$line")
}

# For a trap: ends the step that is being run.
end_current() {
    [ -z "$current" ] || kill "$current" 2>/dev/null || true
}

# Prints what became of each step, and the counts as the last line. Returns 1 when anything failed, or nothing passed.
close_run() {
    printf '\n'
    printf '%s\n' "${summary[@]}"
    printf 'total %d s; logs in %s\n\n' "$SECONDS" "$run"
    if [ "$skipped" = 0 ]; then
        printf '%d passed, %d failed\n' "$passed" "$failed"
    else
        printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    fi
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}
