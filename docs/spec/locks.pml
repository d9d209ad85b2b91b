/* Locks over lock sessions: acquire, release, resume; with lost answers, failing batches, commits
   that are cut short and failovers. Nobody is ended here: see lease.pml and adoption.pml.

   One key. Member 0 wants it exclusively (task 0), two tasks of member 1 want it shared (tasks 1
   and 2): no unique index stands between an exclusive and a shared grant, the protocol alone does.
   A member has one lock session after another, each with its own backend; those it has given up
   may be frozen with a statement in their socket, and thaw at any time, or die. */
#include "promise.h"

/* CHECK -DFAULTS=1 -DSHARING=2 */
/* CHECK -DFAULTS=2 -DSHARING=0 */
/* RULE NO_CHECK_AFTER_TRY -DFAULTS=1 -DSHARING=2: two holders */
/* RULE NO_UNRESUMED_GRANTS_REFUSE -DFAULTS=1 -DSHARING=1: two holders */
/* RULE NO_ERROR_ENDS_SESSION -DFAULTS=1 -DSHARING=1: leaked */
/* RULE NO_SESSION_NUMBER -DFAULTS=1 -DSHARING=1: leaked */
/* RULE NO_RESUME_NUMBER_RISES -DFAULTS=2 -DSHARING=0: hold lost */
/* RULE NO_ROW_KEPT -DFAULTS=1 -DSHARING=1: leaked */
/* RULE NO_RESUME_RECONCILES -DFAULTS=1 -DSHARING=1: leaked */
/* RULE NO_UNLOCK_AS_OFTEN -DFAULTS=1 -DSHARING=2: leaked */
/* RULE NO_WARNED_COMMIT_DOUBTED -DFAULTS=2 -DSHARING=1: hold lost */

#ifndef FAULTS
#define FAULTS 2   /* answers nobody hears, failing batches, cut commits, failovers: so many in all */
#endif
#ifdef FAULTY_MEMBER                          /* only this one has them, but for failovers */
#define CAN_FAIL   (faults > 0 && m == FAULTY_MEMBER)
#else
#define CAN_FAIL   (faults > 0)
#endif
#define SESSIONS   3                          /* one more than faults */
#define BACKENDS   6
#define OWNER(t)   ((t) != 0)

mtype = { NOTHING, ACQUIRE, RELEASE, RESUME, GRANTED, REFUSED, DONE, WARNED, FAILED };

/* The database. A grant is a row: `grant` is what transactions see, `durable` what the synchronous
   standby has. An advisory lock is in the memory of one server: a count for each backend. */
bool grant[3], durable[3];
bool advisory_held[3];             /* column of the row */
byte session[2], durable_session[2];
byte advisory[BACKENDS];
byte row[2];                       /* who has locked the member's row: backend + 1 */

/* Connections. */
bool open[BACKENDS];
bool closed[BACKENDS];             /* the client has gone, the backend may not know */
mtype statement[BACKENDS] = NOTHING;
mtype answer[BACKENDS] = NOTHING;
byte about[BACKENDS];              /* the task of a statement; a resume's list, a bit for each task */

/* The members. */
bool holds[3];                     /* the task knows that it holds: it may act at any time */
byte rounds[3];                    /* how often each task will ask */
byte faults = FAULTS;

bool two_holders, hold_lost, leaked;

#ifdef NO_UNRESUMED_GRANTS_REFUSE
bool unresumed[2];                 /* the member has not resumed since the last failover */
#define STANDS(t) (grant[t] && !unresumed[OWNER(t)])
#else
#define STANDS(t) grant[t]
#endif
#define IN_THE_WAY(m) (STANDS(0) || m == 0 && (STANDS(1) || STANDS(2)))
#define SUM(i)        (advisory[i] + advisory[i + 1] + advisory[i + 2])
#define LOCKABLE(m)   (SUM(0) == 0 && (m == 1 || SUM(3) == 0))
#define RETAKABLE(m)  (SUM(0) == (m == 0 -> advisory[b] : 0) && (m == 1 || SUM(3) == 0))

/* Idle without client and locks, a backend is as good as dead. */
inline reply(x) {
  if
  :: !closed[b] -> answer[b] = x
  :: else -> open[b] = advisory[b] > 0
  fi
}

inline flush() {
  durable[0] = grant[0]; durable[1] = grant[1]; durable[2] = grant[2];
  durable_session[0] = session[0]; durable_session[1] = session[1]
}

inline kill(x) {
  if :: row[x / SESSIONS] == x + 1 -> row[x / SESSIONS] = 0 :: else fi;
  advisory[x] = 0; statement[x] = NOTHING; about[x] = 0; open[x] = false
}

inline end_session() { answer[b] = (closed[b] -> NOTHING : FAILED); kill(b) }

/* A synchronous commit; or one that is cut short while it waits for the standby: everybody sees
   it, the answer carries a warning, and the standby has it not. */
inline commit(good) {
  if
  :: flush(); row[m] = 0; statement[b] = NOTHING; about[b] = 0; reply(good)
  :: CAN_FAIL -> faults--; row[m] = 0; statement[b] = NOTHING; about[b] = 0; reply(WARNED)
  fi
}

inline refuse() { row[m] = 0; statement[b] = NOTHING; about[b] = 0; reply(REFUSED) }

/* A batch that fails: its rows are rolled back, its advisory locks are not. */
inline fail() {
  faults--;
#ifdef NO_ERROR_ENDS_SESSION
  row[m] = 0; statement[b] = NOTHING; about[b] = 0; reply(FAILED)
#else
  end_session()
#endif
}

/* Am I still the lock session? Keeps the member's row until the end of the transaction. */
inline check_session() {
  atomic { row[m] == 0 ->
#ifndef NO_ROW_KEPT
    row[m] = b + 1;
#endif
#ifndef NO_SESSION_NUMBER
    if :: session[m] != n -> end_session() :: else fi
#endif
  }
}

proctype Backend(byte m; byte n; byte b) {
  bool way, got;
  {
end:
    do
    :: statement[b] == ACQUIRE ->
       check_session();
#ifdef NO_CHECK_AFTER_TRY
       way = IN_THE_WAY(m);                  /* one statement sees one snapshot, taken before */
#endif
       atomic { got = LOCKABLE(m) || m == 0 && SUM(0) == advisory[b] && SUM(3) == 0;
                advisory[b] = advisory[b] + got };
#ifndef NO_CHECK_AFTER_TRY
       way = IN_THE_WAY(m);
#endif
       if
       :: atomic { way || !got -> advisory[b] = advisory[b] - got; way = false; got = false; refuse() }
       :: atomic { !way && got && CAN_FAIL -> way = false; got = false; fail() }
       :: atomic { !way && got -> got = false;
                   grant[about[b]] = true; advisory_held[about[b]] = true; commit(GRANTED) }
       fi
    :: statement[b] == RELEASE ->
       check_session();
       atomic {
#ifdef NO_UNLOCK_AS_OFTEN
         if
         :: grant[about[b]] && grant[0] + grant[1] + grant[2] == 1 -> advisory[b]--
         :: else
         fi
#else
         advisory[b] = advisory[b] - (grant[about[b]] && advisory_held[about[b]])
#endif
       };
       if
       :: atomic { CAN_FAIL -> fail() }
       :: atomic { grant[about[b]] = false; advisory_held[about[b]] = false;
                   row[m] = 0; statement[b] = NOTHING; about[b] = 0; reply(DONE) }  /* no wait */
       fi
    :: statement[b] == RESUME ->
       atomic { row[m] == 0 -> row[m] = b + 1;
#ifndef NO_RESUME_NUMBER_RISES
         if :: session[m] >= n -> end_session() :: else fi
#endif
       };
       atomic {
#ifndef NO_RESUME_RECONCILES
         grant[0] = grant[0] && (m == 1 || about[b] & 1);
         grant[1] = grant[1] && (m == 0 || about[b] & 2);
         grant[2] = grant[2] && (m == 0 || about[b] & 4);
#endif
         PROMISE(hold_lost, m == 1 || !holds[0] || grant[0]);
         got = RETAKABLE(m);                 /* else somebody probes: he finds our row and undoes */
         if
         :: m == 0 -> advisory_held[0] = got && grant[0]; advisory[b] = advisory_held[0]
         :: else -> advisory_held[1] = got && grant[1]; advisory_held[2] = got && grant[2];
            advisory[b] = advisory_held[1] + advisory_held[2]
         fi;
         got = false; session[m] = n;
#ifdef NO_UNRESUMED_GRANTS_REFUSE
         unresumed[m] = false;
#endif
         commit(DONE)
       }
    od
  } unless { !open[b] }
}

#define HERE m * SESSIONS + n      /* the backend of the present session */

inline connect() { open[HERE] = true; run Backend(m, n, HERE) }
inline ask(what, which) { statement[HERE] = what; about[HERE] = which }
inline heard() { answer[HERE] = NOTHING }
#define UNHEARD (answer[HERE] == NOTHING && (!open[HERE] || CAN_FAIL))

/* Each try of a resume has its own number; what it holds is listed when it is sent. */
inline resume() {
end_bound:
  do
  :: atomic { n < SESSIONS - 1 -> heard(); closed[HERE] = true;
       open[HERE] = open[HERE] && (statement[HERE] != NOTHING || advisory[HERE] > 0); n++; connect();
       statement[HERE] = RESUME;
       about[HERE] = (m == 0 -> holds[0] : 2 * holds[1] + 4 * holds[2]) };
     if
     :: atomic { answer[HERE] == DONE -> heard();
          PROMISE(hold_lost, (m != OWNER(0) || !holds[0] || grant[0])
                             && (m != OWNER(1) || (!holds[1] || grant[1]) && (!holds[2] || grant[2])));
          break }
     :: answer[HERE] == WARNED || answer[HERE] == FAILED
     :: atomic { UNHEARD -> faults = faults - open[HERE] }
     fi
  od
}

inline acquire(t) {
  atomic { !holds[t] && rounds[t] > 0 && open[HERE] -> rounds[t]--; ask(ACQUIRE, t) };
  if
  :: atomic { answer[HERE] == GRANTED -> heard(); holds[t] = true;
       PROMISE(two_holders, !(holds[0] && (holds[1] || holds[2]))) }
  :: atomic { answer[HERE] == REFUSED -> heard() }
  :: atomic { answer[HERE] == WARNED -> heard();
#ifdef NO_WARNED_COMMIT_DOUBTED
       holds[t] = true; PROMISE(two_holders, !(holds[0] && (holds[1] || holds[2])))
     }
#else
       rounds[t]++ }; resume()
#endif
  :: atomic { answer[HERE] == FAILED -> heard() };
#ifndef NO_ERROR_ENDS_SESSION
     resume()
#endif
  :: atomic { UNHEARD -> faults = faults - open[HERE]; rounds[t]++ }; resume()
  fi
}

inline release(t) {
  atomic { holds[t] && open[HERE] -> holds[t] = false; ask(RELEASE, t) };
  if
  :: atomic { answer[HERE] == DONE -> heard() }
  :: atomic { answer[HERE] == FAILED -> heard() };
#ifndef NO_ERROR_ENDS_SESSION
     resume()
#endif
  :: atomic { UNHEARD -> faults = faults - open[HERE] }; resume()
  fi
}

active proctype Exclusive() {
  byte m = 0, n = 0;
  atomic { rounds[0] = 1; connect() };
end:
  do
  :: acquire(0)
  :: release(0)
  :: !open[HERE] -> resume()
  od
}

active proctype Sharing() {
  byte m = 1, n = 0;
  atomic { rounds[1] = SHARING > 0; rounds[2] = SHARING > 1; connect() };
end:
  do
  :: acquire(1)
  :: acquire(2)
  :: release(1)
  :: release(2)
  :: !open[HERE] -> resume()
  od
}

/* What happens to backends: the clientless ones die some time; all of them at a failover, and what
   the standby had is the truth. */
#define ADRIFT(x) (open[x] && closed[x])

active proctype World() {
  byte x;
end:
  do
  :: atomic { ADRIFT(0) -> kill(0) }
  :: atomic { ADRIFT(1) -> kill(1) }
  :: atomic { ADRIFT(3) -> kill(3) }
  :: atomic { ADRIFT(4) -> kill(4) }
  :: atomic { faults > 0 -> faults--;
#ifdef NO_UNRESUMED_GRANTS_REFUSE
       unresumed[0] = true; unresumed[1] = true;
#endif
       do :: x < BACKENDS -> kill(x); x++ :: else -> break od; x = 0;
       grant[0] = durable[0]; grant[1] = durable[1]; grant[2] = durable[2];
       session[0] = durable_session[0]; session[1] = durable_session[1] }
  od
}

/* When everything has come to rest nobody holds anything: then nothing may be left. */
active proctype Rest() {
  timeout -> PROMISE(leaked, SUM(0) + SUM(3) + grant[0] + grant[1] + grant[2] == 0)
}
