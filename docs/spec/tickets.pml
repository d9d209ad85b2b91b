/* Waiting for a lock: tickets, rings, second tries. There is no slow poll in this model: a wake-up
   that is lost is a waiter that waits for ever, which the checker calls an invalid end state.

   One key, three requests of three members: request 1 wants it exclusively, 0 and 2 share it (with
   ALL_EXCLUSIVE, all want it exclusively). What else happens is checked bit by bit: with GIVES_UP a
   waiter may lose patience, with ENDS member 0 is ended, with CUTS its lock session is cut while
   it holds and it gives the lock back meanwhile; with FIFO the order is looked at. */
#include "promise.h"

/* CHECK -DFIFO */
/* CHECK -DFIFO -DALL_EXCLUSIVE */
/* CHECK -DGIVES_UP */
/* CHECK -DENDS */
/* CHECK -DCUTS */
/* RULE NO_TICKETS_REFUSE -DFIFO -DALL_EXCLUSIVE: overtaken */
/* RULE NO_SECOND_TRY -DFIFO: waits for ever */
/* RULE NO_RELEASE_RINGS -DFIFO: waits for ever */
/* RULE NO_UNDO_RINGS -DFIFO: waits for ever */
/* RULE NO_RING_KEPT -DFIFO: waits for ever */
/* RULE NO_WITHDRAWAL_RINGS -DGIVES_UP: waits for ever */
/* RULE NO_HEADS_AFTER_COMMIT -DGIVES_UP: waits for ever */
/* RULE NO_ENDING_DELETES_TICKETS -DENDS: leaked */
/* RULE NO_ENDING_RINGS -DENDS: waits for ever */
/* RULE NO_RESUME_RINGS -DCUTS: waits for ever */

#ifdef ALL_EXCLUSIVE
#define CLASH(p, q) (p != q)
#else
#define CLASH(p, q) (p != q && (p == 1 || q == 1))
#endif

/* The database. */
bool grant[3];
byte ticket[3], drawn;                        /* 0: none */
bool advisory[3];                             /* the member's lock session has the advisory lock */

/* The members. */
bool rung[3];                                 /* a bell has rung for it */
bool listening[3];
bool idle[3];                                 /* between two statements */
bool ended;                                   /* member 0 */
bool cut;                                     /* its lock session */
byte before[3];                               /* whose tickets stood when it first asked, as bits */
bool two_holders, overtaken, leaked, waits_for_ever;

#define GRANTED_TO_OTHERS(r) (CLASH(r, 0) && grant[0] || CLASH(r, 1) && grant[1] \
                              || CLASH(r, 2) && grant[2])
#define PRECEDES(q, r)       (CLASH(q, r) && ticket[q] > 0 && (ticket[r] == 0 || ticket[q] < ticket[r]))
#define AWAITED(r)           (PRECEDES(0, r) || PRECEDES(1, r) || PRECEDES(2, r))
#define LOCKED(r)            (CLASH(r, 0) && advisory[0] || CLASH(r, 1) && advisory[1] \
                              || CLASH(r, 2) && advisory[2])

/* Whom to ring: all whose tickets nobody precedes whom they would clash with. */
#define HEAD(r)              (ticket[r] > 0 && !AWAITED(r))
#define HEADS                (HEAD(0) + 2 * HEAD(1) + 4 * HEAD(2))

#ifdef NO_RING_KEPT
#define HEARS(r)             listening[r]
#else
#define HEARS(r)             true
#endif
inline ring(whom) {
  atomic {
    rung[0] = rung[0] || (whom & 1) && HEARS(0);
    rung[1] = rung[1] || (whom & 2) && HEARS(1);
    rung[2] = rung[2] || (whom & 4) && HEARS(2);
    whom = 0
  }
}

inline forget_ticket(r) {
  ticket[r] = 0;
#ifdef FIFO
  before[0] = before[0] & (255 - (1 << r));
  before[1] = before[1] & (255 - (1 << r));
  before[2] = before[2] & (255 - (1 << r))
#endif
}

/* The heads as a transaction sees them that has deleted a ticket and not committed yet. */
inline heads_without(r) {
  atomic { number = ticket[r]; ticket[r] = 0; heads = HEADS; ticket[r] = number; number = 0 }
}

proctype Request(byte r; bool patient) {
  bool got, refused, again, fresh;
  byte heads, number;

#ifdef FIFO
  before[r] = ((CLASH(r, 0) && ticket[0] > 0) + 2 * (CLASH(r, 1) && ticket[1] > 0)
               + 4 * (CLASH(r, 2) && ticket[2] > 0));
#endif
try:
  atomic {
    if :: ended && r == 0 -> goto over :: else fi;
    idle[r] = false; got = !LOCKED(r); advisory[r] = got
  };
#ifdef NO_TICKETS_REFUSE
  atomic { refused = !got || GRANTED_TO_OTHERS(r) };
#else
  atomic { refused = !got || GRANTED_TO_OTHERS(r) || AWAITED(r) };
#endif
  if
  :: atomic { !refused ->
       grant[r] = true; forget_ticket(r); idle[r] = true; got = false; rung[r] = false;
       PROMISE(two_holders, !GRANTED_TO_OTHERS(r));
       PROMISE(overtaken, before[r] == 0) };
     goto hold
  :: else
  fi;
  atomic { advisory[r] = false;
    again = (got -> GRANTED_TO_OTHERS(r) : !GRANTED_TO_OTHERS(r) && !AWAITED(r));
    fresh = (ticket[r] == 0);
    if :: fresh -> drawn++; number = drawn :: else fi };  /* may commit out of order */
#ifndef NO_UNDO_RINGS
  if :: atomic { got -> heads = HEADS } :: else fi;
#endif
  atomic { idle[r] = true; got = false; refused = false;   /* the commit */
    if :: fresh -> ticket[r] = number; number = 0 :: else fi };
  if :: heads -> ring(heads) :: else fi;
  if
#ifndef NO_SECOND_TRY
  :: atomic { fresh -> fresh = false; again = false }; goto try
#endif
  :: atomic { again -> fresh = false; again = false }; goto try
  :: else
  fi;
  atomic { listening[r] = true; fresh = false; again = false };
  if
  :: atomic { rung[r] -> rung[r] = false; listening[r] = false }; goto try
  :: atomic { !patient -> listening[r] = false };                /* gives up */
#if defined(NO_HEADS_AFTER_COMMIT) && !defined(NO_WITHDRAWAL_RINGS)
     heads_without(r);
#endif
     atomic { forget_ticket(r) };
#if !defined(NO_HEADS_AFTER_COMMIT) && !defined(NO_WITHDRAWAL_RINGS)
     heads = HEADS;
#endif
     ring(heads); goto over
  :: ended && r == 0 -> goto over
  fi;

hold:
  if
  :: atomic { ended && r == 0 -> goto over }
  :: atomic { cut && r == 0 -> cut = false; idle[r] = false };
     /* It gave the lock back while it had no session: the resume says so. */
#ifndef NO_RESUME_RINGS
     heads = HEADS;
#endif
     grant[r] = false
  :: atomic { !(ended && r == 0) && !(cut && r == 0) -> idle[r] = false; advisory[r] = false };
#ifndef NO_RELEASE_RINGS
     heads = HEADS;
#endif
     grant[r] = false                         /* the commit */
  fi;
  ring(heads);
over:
  atomic { listening[r] = false; idle[r] = false; rung[r] = false }
}

#if defined(ENDS) || defined(CUTS)
active proctype Trouble() {
  byte heads, number;
end:
  if
#ifdef ENDS
  :: atomic { idle[0] -> ended = true; advisory[0] = false };
#if defined(NO_HEADS_AFTER_COMMIT) && !defined(NO_ENDING_RINGS)
     heads_without(0);
#endif
#ifdef NO_ENDING_DELETES_TICKETS
     grant[0] = false;
#else
     atomic { grant[0] = false; forget_ticket(0) };
#endif
#if !defined(NO_HEADS_AFTER_COMMIT) && !defined(NO_ENDING_RINGS)
     heads = HEADS;
#endif
     ring(heads)
#endif
#ifdef CUTS
  :: atomic { idle[0] && grant[0] -> cut = true; advisory[0] = false }
#endif
  fi
}
#endif

init {
  atomic {
    run Request(0, true);
    run Request(2, true);
#ifdef GIVES_UP
    run Request(1, false)
#else
    run Request(1, true)
#endif
  };
  timeout -> PROMISE(waits_for_ever, !listening[0] && !listening[1] && !listening[2]);
  PROMISE(leaked, !grant[0] && !grant[1] && !grant[2] && !advisory[0] && !advisory[1]
                  && !advisory[2] && !ticket[0] && !ticket[1] && !ticket[2])
}
