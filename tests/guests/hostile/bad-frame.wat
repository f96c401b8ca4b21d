;; Emits one small frame with one thing wrong, chosen by the first byte of the first event's
;; payload:
;;   m wrong magic              s size beyond the frame       d unknown kind
;;   v a later minimum reader   S size 0                      g a flag
;;   c one event too many       p lengths whose sum wraps   t time 2^53
;;   C 4 billion events           around in 32 bits           u cause 256, beyond any frame
;;   z no events, and bytes     f field beyond its part       U cause of a received event
;;   l length one too many      F fields 4 GiB long           a forged attachment
;;   x a byte behind the end    k key not UTF-8
;;   h shorter than a header    K key of 513 bytes
;;   0 no bytes at all
;; With anything else the frame is good. An empty payload is not looked for.
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

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32)))
    ;; A good frame at 1024: magic, format 1, minimum reader 1, count 1, length 62. Its event:
    ;; size 46, kind 0, flags 0, input 0, port 0, key length 1, cause 0, time 1, payload length 1,
    ;; fields length 12; key `k`; payload `p`; field 3 (attachments), 8 bytes. The field is number
    ;; 257 in the template, so that it is harmless.
    (data (i32.const 1024)
      "SBXF\01\00\01\00\01\00\00\00\3e\00\00\00"
      "\2e\00\00\00\00\00\00\00\00\00\01\00\00\00\00\00"
      "\01\00\00\00\00\00\00\00\01\00\00\00\0c\00\00\00"
      "kp\01\01\08\00source!!")
    (func (export "handle") (param $frame i32) (param $len i32) (result i32)
      (local $what i32) (local $emitted i32)
      (local.set $emitted (i32.const 62))
      ;; The first byte of the first event's payload, behind its head and key.
      (local.set $what (i32.load8_u offset=48 (i32.add (local.get $frame)
        (i32.load16_u offset=26 (local.get $frame)))))
      (if (i32.eq (local.get $what) (i32.const 0x6d)) ;; m
        (then (i32.store8 offset=1024 (i32.const 0) (i32.const 0x73))))
      (if (i32.eq (local.get $what) (i32.const 0x76)) ;; v
        (then (i32.store16 offset=1030 (i32.const 0) (i32.const 2))))
      (if (i32.eq (local.get $what) (i32.const 0x63)) ;; c
        (then (i32.store offset=1032 (i32.const 0) (i32.const 2))))
      (if (i32.eq (local.get $what) (i32.const 0x43)) ;; C
        (then (i32.store offset=1032 (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 0x7a)) ;; z
        (then (i32.store offset=1032 (i32.const 0) (i32.const 0))))
      (if (i32.eq (local.get $what) (i32.const 0x6c)) ;; l
        (then (i32.store offset=1036 (i32.const 0) (i32.const 63))))
      (if (i32.eq (local.get $what) (i32.const 0x78)) ;; x
        (then (local.set $emitted (i32.const 63))))
      (if (i32.eq (local.get $what) (i32.const 0x68)) ;; h
        (then (local.set $emitted (i32.const 15))))
      (if (i32.eq (local.get $what) (i32.const 0x30)) ;; 0
        (then (local.set $emitted (i32.const 0))))
      (if (i32.eq (local.get $what) (i32.const 0x73)) ;; s
        (then (i32.store offset=1040 (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 0x53)) ;; S
        (then (i32.store offset=1040 (i32.const 0) (i32.const 0))))
      (if (i32.eq (local.get $what) (i32.const 0x70)) ;; p
        (then
          (i32.store offset=1064 (i32.const 0) (i32.const -1))
          (i32.store offset=1068 (i32.const 0) (i32.const 14))))
      (if (i32.eq (local.get $what) (i32.const 0x66)) ;; f
        (then (i32.store16 offset=1076 (i32.const 0) (i32.const 9))))
      (if (i32.eq (local.get $what) (i32.const 0x46)) ;; F
        (then (i32.store offset=1068 (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 0x6b)) ;; k
        (then (i32.store8 offset=1072 (i32.const 0) (i32.const 0xff))))
      (if (i32.eq (local.get $what) (i32.const 0x4b)) ;; K
        (then
          ;; All else is right: the frame is longer by 512, and what lies there is good text.
          (i32.store16 offset=1050 (i32.const 0) (i32.const 513))
          (i32.store offset=1040 (i32.const 0) (i32.const 558))
          (i32.store offset=1036 (i32.const 0) (i32.const 574))
          (local.set $emitted (i32.const 574))))
      (if (i32.eq (local.get $what) (i32.const 0x64)) ;; d
        (then (i32.store8 offset=1044 (i32.const 0) (i32.const 4))))
      (if (i32.eq (local.get $what) (i32.const 0x67)) ;; g
        (then (i32.store8 offset=1045 (i32.const 0) (i32.const 1))))
      (if (i32.eq (local.get $what) (i32.const 0x74)) ;; t
        (then (i64.store offset=1056 (i32.const 0) (i64.const 0x20000000000000))))
      (if (i32.eq (local.get $what) (i32.const 0x75)) ;; u
        (then (i32.store offset=1052 (i32.const 0) (i32.const 256))))
      (if (i32.eq (local.get $what) (i32.const 0x55)) ;; U
        (then (i32.store offset=1052 (i32.const 0) (i32.const -1))))
      (if (i32.eq (local.get $what) (i32.const 0x61)) ;; a
        (then (i32.store16 offset=1074 (i32.const 0) (i32.const 3))))
      (call $emit (i32.const 1024) (local.get $emitted))
      (i32.const 0)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "emit" (func $emit))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
