;; The conformance guest by hand, for the world `stage` (framed); what it does: ../CONFORMANCE.md.
;;
;; It also shows the least a stage needs, without any generator: which interfaces it imports, how
;; their functions look from inside a core module (the "canonical ABI"), and how a frame is read and
;; written (wit/FRAME.md). It has no clock, so the command `w` emits nothing.
;;
;; Three parts: what the component imports; a core module `$heap` with the memory; a core module
;; `$stage` with the code. The memory is a module of its own because the host's functions write
;; their results to it, and so must know it before the code that calls them exists.
(component
  ;; -- Imports ---------------------------------------------------------------------------------
  ;; The types of the contract. An exported function may use a record only by a name it imported.
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))

  (import "sluicebox:stage/state@0.1.0" (instance $state
    (type $entry-shape (record (field "slot" string) (field "value" (list u8))))
    (export "entry" (type $entry (eq $entry-shape)))
    (export "get" (func
      (param "event" u32) (param "slot" string) (result (option (list u8)))))
    (export "put" (func
      (param "event" u32) (param "slot" string) (param "value" (list u8))
      (result (result (error string)))))
    (export "delete" (func (param "event" u32) (param "slot" string) (result bool)))
    (export "add" (func
      (param "event" u32) (param "slot" string) (param "delta" s64)
      (result (result s64 (error string)))))
    (export "scan" (func
      (param "event" u32) (param "prefix" string) (param "limit" u32)
      (result (list $entry))))))

  (import "sluicebox:stage/config@0.1.0" (instance $config
    (export "get" (func (param "name" string) (result (option string))))))

  (import "sluicebox:stage/assets@0.1.0" (instance $assets
    (export "size" (func (param "name" string) (result (option u64))))
    (export "read" (func
      (param "name" string) (param "offset" u64) (param "length" u32) (result (list u8))))))

  (import "sluicebox:stage/log@0.1.0" (instance $log
    (type $level-shape (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level-shape)))
    (export "write" (func (param "level" $level) (param "message" string)))))

  (import "sluicebox:stage/metrics@0.1.0" (instance $metrics
    (export "count" (func (param "name" string) (param "delta" u64)))))

  (import "sluicebox:stage/output@0.1.0" (instance $output
    (export "emit" (func (param "frame" (list u8))))))

  ;; -- The memory ------------------------------------------------------------------------------
  ;; A heap that only grows within a call and is emptied when the host has read the result.
  (core module $heap
    (memory (export "memory") 1)
    ;; Below 4096 are constants and places for results; the heap begins there.
    (global $top (mut i32) (i32.const 4096))

    ;; Gives `size` bytes. Memory that cannot be had ends the instance.
    (func $take (export "take") (param $size i32) (param $align i32) (result i32)
      (local $at i32) (local $missing i64)
      ;; at = top rounded up to the alignment
      (local.set $at (i32.and
        (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      ;; missing = at + size - bytes of memory, in 64 bits, so that it cannot wrap
      (local.set $missing (i64.sub
        (i64.add (i64.extend_i32_u (local.get $at)) (i64.extend_i32_u (local.get $size)))
        (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))))
      (if (i64.gt_s (local.get $missing) (i64.const 0))
        (then
          (if (i32.eq (i32.const -1)
                (memory.grow (i32.wrap_i64
                  (i64.shr_u (i64.add (local.get $missing) (i64.const 65535)) (i64.const 16)))))
            (then unreachable))))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (local.get $at))

    ;; By this name and form the host asks for room for arguments and results.
    (func (export "cabi_realloc")
      (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (call $take (local.get $size) (local.get $align)))
      (memory.copy (local.get $at) (local.get $old) (local.get $old-size))
      (local.get $at))

    ;; Called when the host has read the result of `handle`.
    (func (export "empty") (param $result i32)
      (global.set $top (i32.const 4096))))
  (core instance $heap (instantiate $heap))

  ;; -- The host's functions as core functions ---------------------------------------------------
  ;; A string or list is two numbers, address and length. A result that needs more than one number
  ;; is written to an address that is the last parameter.
  (core func $state-get (canon lower (func $state "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $state-put (canon lower (func $state "put")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $state-delete (canon lower (func $state "delete") (memory $heap "memory")))
  (core func $state-add (canon lower (func $state "add")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $state-scan (canon lower (func $state "scan")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $config-get (canon lower (func $config "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $assets-size (canon lower (func $assets "size") (memory $heap "memory")))
  (core func $assets-read (canon lower (func $assets "read")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $log-write (canon lower (func $log "write") (memory $heap "memory")))
  (core func $metrics-count (canon lower (func $metrics "count") (memory $heap "memory")))
  (core func $output-emit (canon lower (func $output "emit") (memory $heap "memory")))

  ;; -- The code --------------------------------------------------------------------------------
  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "heap" "take" (func $take (param i32 i32) (result i32)))
    ;; (event, slot, slot length, result): option of bytes
    (import "host" "state-get" (func $state-get (param i32 i32 i32 i32)))
    ;; (event, slot, slot length, value, value length, result): result of nothing or string
    (import "host" "state-put" (func $state-put (param i32 i32 i32 i32 i32 i32)))
    (import "host" "state-delete" (func $state-delete (param i32 i32 i32) (result i32)))
    ;; (event, slot, slot length, delta, result): result of s64 or string
    (import "host" "state-add" (func $state-add (param i32 i32 i32 i64 i32)))
    ;; (event, prefix, prefix length, limit, result): list of entries
    (import "host" "state-scan" (func $state-scan (param i32 i32 i32 i32 i32)))
    (import "host" "config-get" (func $config-get (param i32 i32 i32)))
    (import "host" "assets-size" (func $assets-size (param i32 i32 i32)))
    ;; (name, name length, offset, length, result): bytes
    (import "host" "assets-read" (func $assets-read (param i32 i32 i64 i32 i32)))
    (import "host" "log-write" (func $log-write (param i32 i32 i32)))
    (import "host" "metrics-count" (func $metrics-count (param i32 i32 i64)))
    (import "host" "output-emit" (func $output-emit (param i32 i32)))

    ;; Where results of host functions go. The forms that occur:
    ;;   option of bytes or string      +0 is there (1 byte), +4 address, +8 length
    ;;   result of nothing or string    +0 is error (1 byte), +4 address, +8 length
    ;;   result of s64 or string        +0 is error (1 byte), +8 number, or +8 address, +12 length
    ;;   option of u64                  +0 is there (1 byte), +8 number
    ;;   list                           +0 address, +4 length
    (global $ret i32 (i32.const 0))
    ;; Where the result of `handle` goes: address and length of the list of failures.
    (global $result i32 (i32.const 32))
    ;; Constants. A frame's header for one event: magic, format 1, minimum reader 1, count 1.
    (data (i32.const 64) "SBXF\01\00\01\00\01\00\00\00")
    (data (i32.const 96) "unknown command")

    ;; The event that is being handled: its index, and the parts of it that are needed again.
    (global $index (mut i32) (i32.const 0))
    (global $event (mut i32) (i32.const 0))
    (global $key-len (mut i32) (i32.const 0))
    (global $fields (mut i32) (i32.const 0))
    (global $fields-len (mut i32) (i32.const 0))
    ;; The list of failures: 16 bytes each, room for one an event.
    (global $failures (mut i32) (i32.const 0))
    (global $failed (mut i32) (i32.const 0))

    ;; What the instance remembers from call to call.
    (global $count (mut i32) (i32.const 0))
    (global $sum (mut i32) (i32.const 0))

    ;; -- Building bytes at the top of the heap. What is put without another allocation in between
    ;;    lies together.
    (func $here (result i32) (call $take (i32.const 0) (i32.const 1)))
    (func $put8 (param $value i32)
      (i32.store8 (call $take (i32.const 1) (i32.const 1)) (local.get $value)))
    (func $put16 (param $value i32)
      (i32.store16 (call $take (i32.const 2) (i32.const 1)) (local.get $value)))
    (func $put32 (param $value i32)
      (i32.store (call $take (i32.const 4) (i32.const 1)) (local.get $value)))
    (func $put64 (param $value i64)
      (i64.store (call $take (i32.const 8) (i32.const 1)) (local.get $value)))
    (func $put (param $from i32) (param $len i32)
      (memory.copy (call $take (local.get $len) (i32.const 1)) (local.get $from) (local.get $len)))

    ;; -- Emitting: a frame of one event for each. Simple; a stage in a hurry packs many.
    (func $emit-all (param $port i32) (param $cause i32) (param $key i32) (param $key-len i32)
        (param $payload i32) (param $len i32) (param $fields i32) (param $fields-len i32)
      (local $frame i32) (local $size i32)
      (local.set $size (i32.add (i32.add (i32.const 32) (local.get $key-len))
        (i32.add (local.get $len) (local.get $fields-len))))
      (local.set $frame (call $here))
      ;; The frame's header.
      (call $put (i32.const 64) (i32.const 12))
      (call $put32 (i32.add (i32.const 16) (local.get $size)))
      ;; The event's head.
      (call $put32 (local.get $size))
      (call $put8 (i32.const 0))                            ;; kind: data
      (call $put8 (i32.const 0))                            ;; flags
      (call $put16 (i32.const 0))                           ;; input
      (call $put16 (local.get $port))
      (call $put16 (local.get $key-len))
      (call $put32 (local.get $cause))
      (call $put64 (i64.load offset=16 (global.get $event))) ;; time
      (call $put32 (local.get $len))
      (call $put32 (local.get $fields-len))
      ;; Its three parts.
      (call $put (local.get $key) (local.get $key-len))
      (call $put (local.get $payload) (local.get $len))
      (call $put (local.get $fields) (local.get $fields-len))
      (call $output-emit (local.get $frame) (i32.sub (call $here) (local.get $frame))))

    ;; Emits bytes with everything else as usual.
    (func $emit (param $payload i32) (param $len i32)
      (call $emit-all (i32.const 0) (global.get $index) (i32.const 0) (i32.const 0)
        (local.get $payload) (local.get $len) (i32.const 0) (i32.const 0)))

    ;; Emits everything from `start` to the top of the heap.
    (func $emit-from (param $start i32)
      (call $emit (local.get $start) (i32.sub (call $here) (local.get $start))))

    ;; Emits a byte of status, and then bytes.
    (func $emit-status (param $status i32) (param $value i32) (param $len i32)
      (local $start i32)
      (local.set $start (call $here))
      (call $put8 (local.get $status))
      (call $put (local.get $value) (local.get $len))
      (call $emit-from (local.get $start)))

    ;; -- Failing. A failure: +0 event, +4 class (1 byte), +8 address and +12 length of the text.
    (func $fail (param $class i32) (param $message i32) (param $len i32)
      (local $at i32)
      (local.set $at (i32.add (global.get $failures)
        (i32.mul (global.get $failed) (i32.const 16))))
      (i32.store (local.get $at) (global.get $index))
      (i32.store8 offset=4 (local.get $at) (local.get $class))
      (i32.store offset=8 (local.get $at) (local.get $message))
      (i32.store offset=12 (local.get $at) (local.get $len))
      (global.set $failed (i32.add (global.get $failed) (i32.const 1))))
    ;; Also what an operand without the form it needs comes to.
    (func $unknown-command (call $fail (i32.const 1) (i32.const 96) (i32.const 15)))

    ;; Whether an operand has one byte of length and at least so many bytes behind it.
    (func $splits (param $operand i32) (param $len i32) (result i32)
      (if (result i32) (i32.eqz (local.get $len))
        (then (i32.const 0))
        (else (i32.lt_u (i32.load8_u (local.get $operand)) (local.get $len)))))

    ;; -- The commands ----------------------------------------------------------------------------
    (func $describe
      (local $start i32)
      (local.set $start (call $here))
      (call $put8 (i32.load8_u offset=4 (global.get $event)))
      (call $put16 (i32.load16_u offset=6 (global.get $event)))
      (call $put64 (i64.load offset=16 (global.get $event)))
      (call $put (i32.add (global.get $event) (i32.const 32)) (global.get $key-len))
      (call $emit-from (local.get $start)))

    ;; How many bytes were remembered, and their sum, is all that is asked of them.
    (func $remember (param $operand i32) (param $len i32)
      (local $start i32) (local $at i32)
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $len)))
          (global.set $sum (i32.add (global.get $sum)
            (i32.load8_u (i32.add (local.get $operand) (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))
      (global.set $count (i32.add (global.get $count) (local.get $len)))
      (local.set $start (call $here))
      (call $put32 (global.get $count))
      (call $put32 (global.get $sum))
      (call $emit-from (local.get $start)))

    (func $emit-many (param $operand i32) (param $len i32)
      (local $value i32) (local $start i32)
      (if (i32.eqz (local.get $len)) (then (call $unknown-command) (return)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $value) (i32.load8_u (local.get $operand))))
          (local.set $start (call $here))
          (call $put8 (local.get $value))
          (call $emit-from (local.get $start))
          (local.set $value (i32.add (local.get $value) (i32.const 1)))
          (br $next))))

    (func $emit-on-port (param $operand i32) (param $len i32)
      (if (i32.eqz (local.get $len)) (then (call $unknown-command) (return)))
      (call $emit-all (i32.load8_u (local.get $operand)) (global.get $index)
        (i32.const 0) (i32.const 0)
        (i32.add (local.get $operand) (i32.const 1)) (i32.sub (local.get $len) (i32.const 1))
        (i32.const 0) (i32.const 0)))

    (func $emit-with-key (param $operand i32) (param $len i32)
      (local $key-len i32)
      (if (i32.eqz (call $splits (local.get $operand) (local.get $len)))
        (then (call $unknown-command) (return)))
      (local.set $key-len (i32.load8_u (local.get $operand)))
      (call $emit-all (i32.const 0) (global.get $index)
        (i32.add (local.get $operand) (i32.const 1)) (local.get $key-len)
        (i32.add (i32.add (local.get $operand) (i32.const 1)) (local.get $key-len))
        (i32.sub (i32.sub (local.get $len) (i32.const 1)) (local.get $key-len))
        (i32.const 0) (i32.const 0)))

    (func $emit-with-cause (param $operand i32) (param $len i32)
      (if (i32.lt_u (local.get $len) (i32.const 4)) (then (call $unknown-command) (return)))
      (call $emit-all (i32.const 0) (i32.load (local.get $operand)) (i32.const 0) (i32.const 0)
        (i32.add (local.get $operand) (i32.const 4)) (i32.sub (local.get $len) (i32.const 4))
        (i32.const 0) (i32.const 0)))

    ;; A field: id (2 bytes), length (2 bytes), value. Copies the first with id 258.
    (func $emit-fields (param $operand i32) (param $len i32)
      (local $start i32) (local $field i32) (local $size i32) (local $end i32)
      (local.set $start (call $here))
      (call $put16 (i32.const 40000))
      (call $put16 (local.get $len))
      (call $put (local.get $operand) (local.get $len))
      (local.set $field (global.get $fields))
      (local.set $end (i32.add (global.get $fields) (global.get $fields-len)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $field) (local.get $end)))
          (local.set $size (i32.add (i32.const 4) (i32.load16_u offset=2 (local.get $field))))
          (if (i32.eq (i32.load16_u (local.get $field)) (i32.const 258))
            (then (call $put (local.get $field) (local.get $size)) (br $done)))
          (local.set $field (i32.add (local.get $field) (local.get $size)))
          (br $next)))
      (call $emit-all (i32.const 0) (global.get $index) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0)
        (local.get $start) (i32.sub (call $here) (local.get $start))))

    (func $state-get-command (param $slot i32) (param $len i32)
      (call $state-get (global.get $index) (local.get $slot) (local.get $len) (global.get $ret))
      (call $emit-option))

    ;; Emits an option of bytes that was returned: 1 and the value, or 0.
    (func $emit-option
      (if (i32.load8_u (global.get $ret))
        (then (call $emit-status (i32.const 1)
          (i32.load offset=4 (global.get $ret)) (i32.load offset=8 (global.get $ret))))
        (else (call $emit-status (i32.const 0) (i32.const 0) (i32.const 0)))))

    (func $state-put-command (param $operand i32) (param $len i32)
      (local $slot-len i32)
      (if (i32.eqz (call $splits (local.get $operand) (local.get $len)))
        (then (call $unknown-command) (return)))
      (local.set $slot-len (i32.load8_u (local.get $operand)))
      (call $state-put (global.get $index)
        (i32.add (local.get $operand) (i32.const 1)) (local.get $slot-len)
        (i32.add (i32.add (local.get $operand) (i32.const 1)) (local.get $slot-len))
        (i32.sub (i32.sub (local.get $len) (i32.const 1)) (local.get $slot-len))
        (global.get $ret))
      (if (i32.load8_u (global.get $ret))
        (then (call $emit-status (i32.const 2)
          (i32.load offset=4 (global.get $ret)) (i32.load offset=8 (global.get $ret))))
        (else (call $emit-status (i32.const 0) (i32.const 0) (i32.const 0)))))

    (func $state-add-command (param $operand i32) (param $len i32)
      (local $slot-len i32)
      (if (i32.eqz (call $splits (local.get $operand) (local.get $len)))
        (then (call $unknown-command) (return)))
      (local.set $slot-len (i32.load8_u (local.get $operand)))
      (if (i32.ne (local.get $len) (i32.add (local.get $slot-len) (i32.const 9)))
        (then (call $unknown-command) (return)))
      (call $state-add (global.get $index)
        (i32.add (local.get $operand) (i32.const 1)) (local.get $slot-len)
        (i64.load offset=1 (i32.add (local.get $operand) (local.get $slot-len)))
        (global.get $ret))
      (if (i32.load8_u (global.get $ret))
        (then (call $emit-status (i32.const 2)
          (i32.load offset=8 (global.get $ret)) (i32.load offset=12 (global.get $ret))))
        (else (call $emit-status (i32.const 0)
          (i32.add (global.get $ret) (i32.const 8)) (i32.const 8)))))

    ;; An entry: address and length of the slot, address and length of the value.
    (func $state-scan-command (param $prefix i32) (param $len i32)
      (local $entry i32) (local $left i32) (local $start i32)
      (call $state-scan (global.get $index) (local.get $prefix) (local.get $len)
        (i32.const 100) (global.get $ret))
      (local.set $entry (i32.load (global.get $ret)))
      (local.set $left (i32.load offset=4 (global.get $ret)))
      (local.set $start (call $here))
      (block $done
        (loop $next
          (br_if $done (i32.eqz (local.get $left)))
          (call $put8 (i32.load offset=4 (local.get $entry)))
          (call $put (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
          (call $put32 (i32.load offset=12 (local.get $entry)))
          (call $put (i32.load offset=8 (local.get $entry)) (i32.load offset=12 (local.get $entry)))
          (local.set $entry (i32.add (local.get $entry) (i32.const 16)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next)))
      (call $emit-from (local.get $start)))

    (func $config-command (param $name i32) (param $len i32)
      (call $config-get (local.get $name) (local.get $len) (global.get $ret))
      (call $emit-option))

    (func $asset-command (param $name i32) (param $len i32)
      (local $start i32) (local $size i64)
      (call $assets-size (local.get $name) (local.get $len) (global.get $ret))
      (if (i32.eqz (i32.load8_u (global.get $ret))) (then (return)))
      (local.set $size (i64.load offset=8 (global.get $ret)))
      (call $assets-read (local.get $name) (local.get $len)
        (i64.const 0) (i32.const 16) (global.get $ret))
      (local.set $start (call $here))
      (call $put64 (local.get $size))
      (call $put (i32.load (global.get $ret)) (i32.load offset=4 (global.get $ret)))
      (call $emit-from (local.get $start)))

    (func $log-command (param $operand i32) (param $len i32)
      (if (i32.eqz (local.get $len)) (then (call $unknown-command) (return)))
      (if (i32.gt_u (i32.load8_u (local.get $operand)) (i32.const 3))
        (then (call $unknown-command) (return)))
      (call $log-write (i32.load8_u (local.get $operand))
        (i32.add (local.get $operand) (i32.const 1)) (i32.sub (local.get $len) (i32.const 1))))

    ;; -- Choosing --------------------------------------------------------------------------------
    (func $run (param $command i32) (param $at i32) (param $len i32)
      (if (i32.eq (local.get $command) (i32.const 0x65)) ;; e
        (then (call $emit (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x6e)) ;; n
        (then (call $emit-many (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x70)) ;; p
        (then (call $emit-on-port (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x6b)) ;; k
        (then (call $emit-with-key (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x75)) ;; u
        (then (call $emit-with-cause (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x64)) ;; d
        (then (call $describe) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x66)) ;; f
        (then (call $emit-fields (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x72)) ;; r
        (then (call $fail (i32.const 0) (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x78)) ;; x
        (then (call $fail (i32.const 1) (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x74)) ;; t
        (then unreachable))
      (if (i32.eq (local.get $command) (i32.const 0x67)) ;; g
        (then (call $state-get-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x73)) ;; s
        (then (call $state-put-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x44)) ;; D
        (then
          (call $emit-status
            (call $state-delete (global.get $index) (local.get $at) (local.get $len))
            (i32.const 0) (i32.const 0))
          (return)))
      (if (i32.eq (local.get $command) (i32.const 0x61)) ;; a
        (then (call $state-add-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x53)) ;; S
        (then (call $state-scan-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x63)) ;; c
        (then (call $config-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x41)) ;; A
        (then (call $asset-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x6c)) ;; l
        (then (call $log-command (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x6d)) ;; m
        (then (call $metrics-count (local.get $at) (local.get $len) (i64.const 1)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x4d)) ;; M
        (then (call $remember (local.get $at) (local.get $len)) (return)))
      (if (i32.eq (local.get $command) (i32.const 0x77)) ;; w
        (then (return)))
      (call $unknown-command))

    ;; Takes apart the event at $event, and does what it says.
    (func $handle-one
      (local $payload i32) (local $len i32)
      (global.set $key-len (i32.load16_u offset=10 (global.get $event)))
      (local.set $payload (i32.add (i32.add (global.get $event) (i32.const 32))
        (global.get $key-len)))
      (local.set $len (i32.load offset=24 (global.get $event)))
      (global.set $fields (i32.add (local.get $payload) (local.get $len)))
      (global.set $fields-len (i32.load offset=28 (global.get $event)))
      ;; Anything but data is described.
      (if (i32.load8_u offset=4 (global.get $event)) (then (call $describe) (return)))
      (if (i32.eqz (local.get $len)) (then (call $unknown-command) (return)))
      (call $run (i32.load8_u (local.get $payload))
        (i32.add (local.get $payload) (i32.const 1)) (i32.sub (local.get $len) (i32.const 1))))

    ;; The frame is trusted: the host has checked it.
    (func (export "handle") (param $frame i32) (param $len i32) (result i32)
      (local $count i32)
      (local.set $count (i32.load offset=8 (local.get $frame)))
      (global.set $failures (call $take
        (i32.mul (local.get $count) (i32.const 16)) (i32.const 4)))
      (global.set $failed (i32.const 0))
      (global.set $index (i32.const 0))
      (global.set $event (i32.add (local.get $frame) (i32.const 16)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (global.get $index) (local.get $count)))
          (call $handle-one)
          ;; The next event lies `size` bytes further.
          (global.set $event (i32.add (global.get $event) (i32.load (global.get $event))))
          (global.set $index (i32.add (global.get $index) (i32.const 1)))
          (br $next)))
      (i32.store (global.get $result) (global.get $failures))
      (i32.store offset=4 (global.get $result) (global.get $failed))
      (global.get $result)))

  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance
      (export "state-get" (func $state-get))
      (export "state-put" (func $state-put))
      (export "state-delete" (func $state-delete))
      (export "state-add" (func $state-add))
      (export "state-scan" (func $state-scan))
      (export "config-get" (func $config-get))
      (export "assets-size" (func $assets-size))
      (export "assets-read" (func $assets-read))
      (export "log-write" (func $log-write))
      (export "metrics-count" (func $metrics-count))
      (export "output-emit" (func $output-emit))))))

  ;; -- The export ------------------------------------------------------------------------------
  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory")
      (realloc (func $heap "cabi_realloc"))
      (post-return (func $heap "empty")))))
