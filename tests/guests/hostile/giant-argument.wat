;; Hands the host more than it should ever look at. What and how is the first byte of the first
;; event's payload; E, L and r claim a length that is not there, the others hand over up to 256 MiB
;; that are (all it may have):
;;   E e  a frame to emit             L l  a line for the log      m  the name of a metric
;;   c    the name of a setting       k    the name of a slot      s  a value for a slot
;;   b    a batch for state           r R  the list of failures it returns: r claims 268 million
;;                                         that are not there, R as many as fit in its memory
;; With anything else it does nothing. An empty payload is not looked for.
(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "sluicebox:stage/output@0.1.0" (instance $output
    (export "emit" (func (param "frame" (list u8))))))
  (import "sluicebox:stage/log@0.1.0" (instance $log
    (type $level-shape (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level-shape)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "sluicebox:stage/metrics@0.1.0" (instance $metrics
    (export "count" (func (param "name" string) (param "delta" u64)))))
  (import "sluicebox:stage/config@0.1.0" (instance $config
    (export "get" (func (param "name" string) (result (option string))))))
  (import "sluicebox:stage/state@0.1.0" (instance $state
    (export "get" (func
      (param "event" u32) (param "slot" string) (result (option (list u8)))))
    (export "put" (func
      (param "event" u32) (param "slot" string) (param "value" (list u8))
      (result (result (error string)))))
    (export "batch" (func (param "operations" (list u8)) (result (list u8))))))

  ;; The memory. The frame is put behind the first page, always at the same place.
  (core module $heap
    (memory (export "memory") 2)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $missing i32)
      (local.set $missing (i32.sub
        (i32.add (i32.const 1) (i32.shr_u (i32.add (local.get 3) (i32.const 65535)) (i32.const 16)))
        (memory.size)))
      (if (i32.gt_s (local.get $missing) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))))
      (i32.const 65536)))
  (core instance $heap (instantiate $heap))
  (core func $emit (canon lower (func $output "emit") (memory $heap "memory")))
  (core func $log (canon lower (func $log "write") (memory $heap "memory")))
  (core func $count (canon lower (func $metrics "count") (memory $heap "memory")))
  (core func $config-get (canon lower (func $config "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $state-get (canon lower (func $state "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $state-put (canon lower (func $state "put")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $batch (canon lower (func $state "batch")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32)))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "count" (func $count (param i32 i32 i64)))
    (import "host" "config-get" (func $config-get (param i32 i32 i32)))
    (import "host" "state-get" (func $state-get (param i32 i32 i32 i32)))
    (import "host" "state-put" (func $state-put (param i32 i32 i32 i32 i32 i32)))
    (import "host" "batch" (func $batch (param i32 i32 i32)))
    ;; Takes up to 256 MiB and says how many bytes there are; all behind the first page is zero,
    ;; which is text as well.
    (func $all (result i32)
      (block $full
        (loop $more
          (br_if $full (i32.ge_u (memory.size) (i32.const 4096)))
          (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))))
      (i32.mul (memory.size) (i32.const 65536)))
    (func (export "handle") (param $frame i32) (param $len i32) (result i32)
      (local $what i32)
      ;; The first byte of the first event's payload, behind its head and key.
      (local.set $what (i32.load8_u offset=48 (i32.add (local.get $frame)
        (i32.load16_u offset=26 (local.get $frame)))))
      (if (i32.eq (local.get $what) (i32.const 0x45)) ;; E
        (then (call $emit (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 0x65)) ;; e
        (then (call $emit (i32.const 0) (call $all))))
      (if (i32.eq (local.get $what) (i32.const 0x4c)) ;; L
        (then (call $log (i32.const 1) (i32.const 8) (i32.const -16))))
      (if (i32.eq (local.get $what) (i32.const 0x6c)) ;; l
        (then (call $log (i32.const 1) (i32.const 0) (call $all))))
      (if (i32.eq (local.get $what) (i32.const 0x6d)) ;; m
        (then (call $count (i32.const 0) (call $all) (i64.const 1))))
      (if (i32.eq (local.get $what) (i32.const 0x63)) ;; c
        (then (call $config-get (i32.const 0) (call $all) (i32.const 16))))
      (if (i32.eq (local.get $what) (i32.const 0x6b)) ;; k
        (then (call $state-get (i32.const 0) (i32.const 0) (call $all) (i32.const 16))))
      (if (i32.eq (local.get $what) (i32.const 0x73)) ;; s
        (then (call $state-put (i32.const 0)
          (i32.const 0) (i32.const 1) (i32.const 0) (call $all) (i32.const 16))))
      (if (i32.eq (local.get $what) (i32.const 0x62)) ;; b
        (then (call $batch (i32.const 0) (call $all) (i32.const 16))))
      (if (i32.eq (local.get $what) (i32.const 0x72)) ;; r
        (then (i32.store offset=4 (i32.const 0) (i32.const 0x0fffffff))))
      (if (i32.eq (local.get $what) (i32.const 0x52)) ;; R
        (then (i32.store offset=4 (i32.const 0)
          (i32.div_u (call $all) (i32.const 16)))))
      ;; Address 0 and, but for `r` and `R`, length 0.
      (i32.const 0)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance
      (export "emit" (func $emit))
      (export "log" (func $log))
      (export "count" (func $count))
      (export "config-get" (func $config-get))
      (export "state-get" (func $state-get))
      (export "state-put" (func $state-put))
      (export "batch" (func $batch))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
