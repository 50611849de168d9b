/*
 * Sessions, leases, grants and fencing of docs/protocol.md §7 for one entity, checked exhaustively with Spin.
 * docs/authority-model.md says what is modelled, what is abstracted and why that is sound, and what was found.
 * scripts/model-check compiles and runs every configuration and every seeded defect (BUG_*).
 *
 * Messages. One that was sent may arrive at any later moment, or never: so nothing needs a queue, and loss,
 * delay and reordering need no step of their own. A renewal in flight is its worth that is left.
 * Processes. A process that stands still (SIGSTOP) is one that takes no step while the clock goes on.
 * Time. One step of `Clock' is one unit. The lessor's and the receiver's clocks are the reference; the clock of
 * the slow server misses one unit in any L+M.
 */

#ifndef N
#define N 2                 /* simulation servers */
#endif
#ifndef L
#define L 3                 /* lease, in units of the holder's clock */
#endif
#ifndef M
#define M 1                 /* what drift makes of a lease: L(1+rho) = L+M */
#endif
#ifndef X
#define X 1                 /* the oldest echo that a receiver takes */
#endif
#ifndef EPOCHS
#define EPOCHS 3            /* grants of the entity in a run; the first is there at the start */
#endif
#ifndef TAKES
#define TAKES 1             /* changes of the lessor */
#endif
#ifndef OPENS
#define OPENS 0             /* sessions opened after the first, together */
#endif
#ifndef CRASHES
#define CRASHES 1           /* servers killed, together */
#endif
#ifndef SLOW
#define SLOW 0              /* the server whose clock is slow; N: none */
#endif

#ifndef STEADY
#define STEADY N            /* a server whose lease is always fresh: the best that a successor can be; N: none */
#endif

/* Whether the end of a session may be more than one transaction. */
#ifndef SLICES
#define SLICES true
#endif

#define NONE N
#ifndef DELETES
#define DELETES 0           /* deletions; the name may be made again after each */
#endif
#if DELETES
#define DUES N              /* releases due at once, at most: those of a deleted entity too, if it was held */
#else
#define DUES (N - 1)
#endif

/* --- What a correct party does, and the seeded defects ------------------------------------------------------- */

#ifdef BUG_LESSOR_WAITS_L
#define COUNTDOWN L
#else
#define COUNTDOWN (L + M)
#endif

#ifdef BUG_TAKE_DOES_NOT_WAIT
#define COUNTDOWN_TAKE 0
#else
#define COUNTDOWN_TAKE COUNTDOWN
#endif

#ifdef BUG_LEASE_FROM_ANSWER
#define WORTH(i) L
#else
#define WORTH(i) worth[i]
#endif

#ifdef BUG_NO_EARLY_STOP
#define STOP 0
#else
#define STOP X
#endif

#ifdef BUG_NO_ECHO
#define FRESH(age) true
#else
#define FRESH(age) ((age) <= X)
#endif

#ifdef BUG_NO_EPOCH_CHECK
#define FENCE(e) true
#else
#define FENCE(e) ((e) == fence)
#endif

#ifdef BUG_GUARDIAN_WATCHES_CONTROL
#define GUARDED(i) (life[i] != UP)
#else
#define GUARDED(i) (life[i] == DEAD)
#endif

#ifdef BUG_STALE_ANSWER
#define NEWS(i, e) ((e) != 0)
#else
#define NEWS(i, e) ((e) > known[i])
#endif

#ifdef BUG_RELEASE_BEFORE_STOP
#define QUIET(i) true
#else
#define QUIET(i) (armed[i] == 0)
#endif

#ifdef BUG_EXPIRY_ACKNOWLEDGES
#define TOO_LATE true
#else
#define TOO_LATE false
#endif

#ifdef BUG_NEVER_EXPIRES
#define EXPIRES false
#else
#define EXPIRES true
#endif

#ifdef BUG_ENDED_ACKNOWLEDGED
#define RENEWABLE(i) THERE(i)
#else
#define RENEWABLE(i) session[i]
#endif

#ifdef BUG_AWAITING_RELEASES
#define RELEASES_FROM AWAITING
#else
#define RELEASES_FROM HOLDING
#endif

#ifdef BUG_MIDDLE_WAITS
#define READS_ABOUT(i) (holder == i && epoch == known[i])
#else
#define READS_ABOUT(i) true
#endif

/* --- The tree: what the log has committed --------------------------------------------------------------------- */

bool session[N];            /* a session is open under this server's name */
bool ending[N];             /* or it has ended, and what names it has yet to be passed on; the name is not free */
byte epoch;                 /* of the newest grant */
byte holder;                /* whom it names; NONE: dormant */
byte due[DUES];             /* sessions whose release is due to the holder, the next one first */
byte due_epoch[DUES];       /* and of which epoch */
byte granted[N];            /* inbox: epoch of a grant (push, failover); 0: none */
byte recalled[N];           /* inbox: epoch to release; 0: none */
byte recalled_for[N];       /* the grant that this recall is for */
byte taker[EPOCHS + 1];     /* whom each epoch was granted to; NONE: the entity was deleted */
#if DELETES
bool deleted;               /* a record stands for the entity until nobody may act for it any more */
bool absent;                /* there is no such entity: anybody may make one of its name */
byte deletes;
byte confirming[N];         /* the server has stopped for a deletion, and says so: the epoch */
#define IS_THERE (!deleted && !absent)
#else
#define IS_THERE true
#endif

/* --- Lessors: the one of the current generation, and the one it deposed ---------------------------------------- */

byte takes;                 /* generation, counted from the first one */
byte countdown[N];          /* of each session, at the current lessor */
bool in_beat[N];            /* its renewal is in a beat that was submitted */
bool muted[N];             /* condemned or its expiry sent: never acknowledged again */
bool expiring[N];           /* its expiry is submitted */
bool deposed;               /* another process still believes that it is the lessor */

/* --- Servers ---------------------------------------------------------------------------------------------------- */

#define UP 0
#define ORPHAN 1            /* its control process is dead, the one that seals state lives, or is frozen */
#define DEAD 2

#define FOLLOWING 0
#define ASKING 1            /* a pull is sent, its answer is due */
#define AWAITING 2
#define HOLDING 3
#define RELEASING 4

byte life[N];
bool member[N];             /* it believes that its session is open */
byte lease[N];              /* units left, by its own clock */
byte worth[N];              /* its newest renewal: what an acknowledgement of it is worth now; 0: none in flight */
bool acknowledged[N];       /* the acknowledgement is under way */
byte phase[N];
byte known[N];              /* its own grant's epoch; FOLLOWING: the highest it knows */
byte awaited[N];            /* AWAITING: the epoch whose release is due; 0: none */
byte answer[N];             /* epoch in the answer to its pull, which may arrive again; 0: none */
byte answer_due[N];         /* and the release that it names */
byte released[N];           /* the newest epoch of its session that it released for good */
#ifdef BUG_FOLLOWS_NOW
bool followed[N];           /* it said once that it follows: an answer that may come late */
#endif
byte target[N];             /* RELEASING: to whom it pushes; NONE: it lets the entity go */
bool refused[N];            /* the refusal of that push is under way */
byte armed[N];              /* the sealing process has checked, and has not sent yet: the epoch */
byte armed_age[N];          /* since it read the echo */
byte slack;                 /* units until the slow clock may miss one again */
byte opens;
byte crashes;

/* --- Between servers -------------------------------------------------------------------------------------------- */

byte releases[EPOCHS + 1];  /* signed releases of each epoch: bit set of takers */
byte flying[EPOCHS + 1];    /* state sealed under each epoch: age of the youngest echo + 1; 0: none */

/* --- One receiver ------------------------------------------------------------------------------------------------ */

byte fence;                 /* highest epoch it knows */
byte accepted;              /* highest epoch it took state of */

/* --- What only the properties read ------------------------------------------------------------------------------ */

byte ended;                 /* epochs that a server might act under when its session was ended by expiry: bit set */
bool calm;                  /* faults have stopped */
byte calm_units;

byte k;                     /* of loops; 0 between steps */
byte to;                    /* of a failover; NONE between steps */

#define OPENED(i) (session[i] && member[i])
#define THERE(i) (session[i] || ending[i])
#define MAY_ACT(i) (life[i] != DEAD && phase[i] == HOLDING && lease[i] > STOP)

/* S1, first half: no two servers may act at one instant. */
inline assert_single() {
    assert(!(MAY_ACT(0) && MAY_ACT(1)));
#if N > 2
    assert(!(MAY_ACT(0) && MAY_ACT(2)));
    assert(!(MAY_ACT(1) && MAY_ACT(2)));
#endif
}

#if DUES > 1
#define IS_DUE(i, e) ((due[0] == i && due_epoch[0] == e) || (due[1] == i && due_epoch[1] == e))
#else
#define IS_DUE(i, e) (due[0] == i && due_epoch[0] == e)
#endif

/*
 * S3: the record is exactly one of held, awaiting or dormant, all it names is open, and whoever was told of a grant
 * is still its holder, or its release is due, or it has been recalled, unless its session has ended.
 */
inline assert_kept(i) {
    assert(holder == NONE || THERE(holder));
    assert(due[0] == NONE || (THERE(due[0]) && due[0] != holder));
#if DUES > 1
    assert(due[1] == NONE || (THERE(due[1]) && due[1] != holder && due[1] != due[0]));
    assert(due[0] != NONE || due[1] == NONE);
#endif
    assert(!(life[i] == UP && OPENED(i) && phase[i] >= AWAITING) ||
           (holder == i && epoch == known[i]) || IS_DUE(i, known[i]) || recalled[i] == known[i] ||
           (granted[i] > known[i]));
}

/* What is due to i under its epoch e, as the record says: it is the holder, or in the chain of those whose release
   is due. What a record says of one epoch only ever gets less, so a late reading is safe. */
#if DUES > 1
#define NAMED(i, e) ((holder == i && epoch == e) || IS_DUE(i, e))
#define DUE_TO(i, e) ((holder == i && epoch == e) -> due_epoch[0] : \
                      ((due[0] == i && due_epoch[0] == e) -> due_epoch[1] : 0))
#else
#define NAMED(i, e) ((holder == i && epoch == e) || IS_DUE(i, e))
#define DUE_TO(i, e) ((holder == i && epoch == e) -> due_epoch[0] : 0)
#endif

/* --- Transactions ------------------------------------------------------------------------------------------------- */

inline drop_due(i) {
#if DUES > 1
    if
    :: due[1] == i -> due[1] = NONE; due_epoch[1] = 0
    :: else
    fi;
    if
    :: due[0] == i -> due[0] = due[1]; due_epoch[0] = due_epoch[1]; due[1] = NONE; due_epoch[1] = 0
    :: else
    fi
#else
    if
    :: due[0] == i -> due[0] = NONE; due_epoch[0] = 0
    :: else
    fi
#endif
}

/* Who pulls has passed on what it had: what is due to it, and all behind that, is settled. */
inline cut_due(i) {
#if DUES > 1
    if
    :: due[0] == i -> due[0] = NONE; due_epoch[0] = 0; due[1] = NONE; due_epoch[1] = 0
    :: else ->
        if
        :: due[1] == i -> due[1] = NONE; due_epoch[1] = 0
        :: else
        fi
    fi
#else
    drop_due(i)
#endif
}

inline push_due(i, e) {
#if DUES > 1
    assert(due[1] == NONE);
    due[1] = due[0]; due_epoch[1] = due_epoch[0];
#else
    assert(due[0] == NONE);
#endif
    due[0] = i; due_epoch[0] = e
}

/* A holder that acts states by what it asks for that no release is due to it any more. */
inline clear_dues() {
    due[0] = NONE; due_epoch[0] = 0;
#if DUES > 1
    due[1] = NONE; due_epoch[1] = 0;
#endif
    skip
}

inline recall_due() {
    if
    :: due[0] != NONE && holder != NONE -> recalled[due[0]] = due_epoch[0]; recalled_for[due[0]] = epoch
    :: else
    fi
}

/* The record of a deleted entity goes with the last one who might act for it. */
inline vanish() {
#if DELETES
    if
    :: deleted && due[0] == NONE -> deleted = false; absent = true
    :: else
    fi;
#endif
    skip
}

inline forget_renewal(i) {
    worth[i] = 0; acknowledged[i] = false; in_beat[i] = false
}

/* What a server that is asked says of its session: nothing acts, or ever will, under a grant up to the newest that it
   released. Who released had received what was due to it: such a link goes, and all behind it. It only ever says more,
   so an answer that comes late is one that says less. */
#ifdef BUG_FOLLOWS_NOW
#define SETTLES(i, e) ((e) != 0 && followed[i])
#else
#define SETTLES(i, e) ((e) != 0 && (e) <= released[i])
#endif

#if DUES > 1
#define OWED(i) (due[0] == i -> due_epoch[0] : (due[1] == i -> due_epoch[1] : 0))
#else
#define OWED(i) (due[0] == i -> due_epoch[0] : 0)
#endif

/* By those who answered; whoever is to go on has. */
inline settle() {
    for (k : 0 .. N - 1) {
        if
        :: SETTLES(k, OWED(k)) -> cut_due(k)
        :: k != to || !SETTLES(k, OWED(k))
        fi
    }
    k = 0
}

/* A session ends: nothing is granted to it any more, or asked in its name. */
inline end_first(i) {
    session[i] = false; ending[i] = true; granted[i] = 0; recalled[i] = 0; recalled_for[i] = 0;
    countdown[i] = 0; muted[i] = false; expiring[i] = false; in_beat[i] = false
}

/* With it, or later: its entity goes to `to', which streams it, or is dormant. What was due to it stays due. */
inline pass_on(i) {
    ending[i] = false; recalled[i] = 0; recalled_for[i] = 0;
    drop_due(i);
    vanish();
    if
    :: holder == i -> settle()
    :: else
    fi;
    if
    :: holder == i && to != NONE && epoch < EPOCHS ->
        epoch++; holder = to; taker[epoch] = to; granted[to] = epoch;
        recalled[to] = 0; recalled_for[to] = 0;
#ifdef BUG_FAILOVER_TO_DUE
        drop_due(to);
#endif
#ifdef BUG_FAILOVER_FORGETS_DUES
        clear_dues();
#endif
        recall_due()
    :: holder == i && (to == NONE || epoch == EPOCHS) -> holder = NONE
    :: else -> recall_due()
    fi;
    to = NONE
}

#ifdef BUG_FAILOVER_TO_DUE
#define OWES(i) false
#else
#define OWES(i) (OWED(i) != 0 && !SETTLES(i, OWED(i)))
#endif

/* The next server that streams the entity is any open one whose own release is not due, or there is none. */
inline choose_successor(i) {
    if
    :: to = NONE
    :: holder == i && i != 0 && session[0] && !OWES(0) && epoch < EPOCHS -> to = 0
    :: holder == i && i != 1 && session[1] && !OWES(1) && epoch < EPOCHS -> to = 1
#if N > 2
    :: holder == i && i != 2 && session[2] && !OWES(2) && epoch < EPOCHS -> to = 2
#endif
    fi
}

/* All of it in one transaction, or what names it by another one, of whoever is the lessor then. */
inline end_session(i) {
    if
    :: choose_successor(i); end_first(i); pass_on(i)
    :: SLICES -> end_first(i)
    fi
}

inline begin(i) {
    phase[i] = HOLDING; awaited[i] = 0;
    assert_single()
}

inline send(e, age) {
    if
    :: FRESH(age) && (flying[e] == 0 || flying[e] > age + 1) -> flying[e] = age + 1
    :: else
    fi
}

inline stop_following(i) {
    phase[i] = FOLLOWING; awaited[i] = 0; target[i] = NONE; refused[i] = false
}

/* --- Lessor ------------------------------------------------------------------------------------------------------- */

/* What it does about the session of server i. Sessions are acknowledged one by one: what one beat does for several
   is among what their own beats may do. */
proctype Lessor(byte i)
{
    do
#ifdef UNTIMED
    /* What the timed configurations show of leases: a session expires when nothing of its lease is left. */
    :: d_step { !calm && lease[i] > 0 && life[i] != DEAD -> lease[i] = 0 }
    :: d_step { life[i] == ORPHAN && lease[i] > 0 -> lease[i] = 0 }
    :: d_step { life[i] == UP && OPENED(i) && lease[i] == 0 -> lease[i] = L }
    :: atomic { session[i] && lease[i] == 0 && (!calm || life[i] != UP || !member[i]) ->
        end_session(i); assert_kept(0); assert_kept(1); assert_kept(N - 1) }
#else
    /* A beat is submitted, with the renewal that came in before; the countdown restarts here. */
    :: d_step { i != STEADY && RENEWABLE(i) && worth[i] > 0 && !acknowledged[i] && !in_beat[i] && (!muted[i] || TOO_LATE) ->
        in_beat[i] = true;
        countdown[i] = COUNTDOWN }
    /* It commits: the generation is still the same, for a change of it aborts this beat. */
    :: d_step { in_beat[i] -> in_beat[i] = false; acknowledged[i] = (!expiring[i] || TOO_LATE) }
    /* So does a deposed lessor, which does not know yet: its beat aborts, and that is how it learns. */
    :: d_step { deposed && worth[i] > 0 && !acknowledged[i] ->
#ifdef BUG_DEPOSED_ACKNOWLEDGES
        acknowledged[i] = true
#else
        deposed = false
#endif
        }
    /* A hung or unwilling holder: no longer acknowledged, so its lease runs out. */
    :: d_step { !calm && i != STEADY && session[i] && !muted[i] -> muted[i] = true }
#ifdef BUG_HUNG_ENDS_AT_ONCE
    :: atomic { session[i] && muted[i] -> end_session(i) }
#endif
    :: d_step { EXPIRES && i != STEADY && session[i] && countdown[i] == 0 && !expiring[i] -> expiring[i] = true; muted[i] = true }
    /* The expiry commits; one of an older generation aborts. */
    :: atomic { expiring[i] ->
        if
        :: phase[i] == HOLDING -> ended = ended | (1 << known[i])
        :: else
        fi;
        assert(lease[i] == 0 && !acknowledged[i]);
        end_session(i); assert_kept(0); assert_kept(1); assert_kept(N - 1) }
#endif
    :: atomic { ending[i] -> choose_successor(i); pass_on(i); assert_kept(0); assert_kept(1); assert_kept(N - 1) }
    od
}

/* The leader changes, or the lessor's process starts anew: another generation, which knows nothing yet. */
proctype Leaders()
{
    do
    :: d_step { !calm && takes < TAKES -> takes++; deposed = true;
        for (k : 0 .. N - 1) {
            in_beat[k] = false; muted[k] = false; expiring[k] = false;
            countdown[k] = (session[k] -> COUNTDOWN_TAKE : 0)
        }
        k = 0 }
    od
}

/* --- Server: control process, sealing process, guardian ------------------------------------------------------------ */

proctype Server(byte i)
{
    do
#ifndef UNTIMED
    /* Renewals: counted from before they are sent; the next one gives the older one up as lost. */
    :: d_step { i != STEADY && life[i] == UP && member[i] && worth[i] < L && (!calm || (worth[i] == 0 && lease[i] < L)) ->
        forget_renewal(i); worth[i] = L }
    :: d_step { life[i] == UP && member[i] && acknowledged[i] ->
        if
        :: WORTH(i) > lease[i] -> lease[i] = WORTH(i)
        :: else
        fi;
        forget_renewal(i); assert_single() }

#endif
    /* The lease is lost: everything held is dropped. */
    :: d_step { life[i] == UP && member[i] && lease[i] == 0 && (phase[i] != FOLLOWING || worth[i] == 0) ->
        stop_following(i); member[i] = false; forget_renewal(i); answer[i] = 0; answer_due[i] = 0 }
    /* A new session, under the name that the earlier one may still have. Its lease counts from before it asked. */
    :: atomic { !calm && life[i] == UP && !member[i] && !ending[i] && opens < OPENS -> opens++;
        if
        :: session[i] -> choose_successor(i); end_first(i); pass_on(i)
        :: else
        fi;
        d_step {
            forget_renewal(i); session[i] = true; member[i] = true; countdown[i] = COUNTDOWN;
            released[i] = 0; lease[i] = 0;
#ifndef UNTIMED
            worth[i] = L; acknowledged[i] = true
#endif
        } }

#ifndef NO_TRANSFERS
    /* Pull: committed, and answered later. */
    :: d_step { !calm && life[i] == UP && OPENED(i) && phase[i] == FOLLOWING && IS_THERE && holder != i && epoch < EPOCHS &&
               granted[i] <= known[i] ->
        phase[i] = ASKING;
        cut_due(i);
        if
        :: holder != NONE -> push_due(holder, epoch)
        :: else
        fi;
        epoch++; holder = i; taker[epoch] = i;
        recall_due();
        answer[i] = epoch;
        answer_due[i] = due_epoch[0];
        assert_kept(0); assert_kept(1); assert_kept(N - 1) }
    :: d_step { life[i] == UP && member[i] && (phase[i] == ASKING || phase[i] == FOLLOWING) && NEWS(i, answer[i]) ->
        known[i] = answer[i]; awaited[i] = answer_due[i];
#ifdef BUG_ACT_BEFORE_RELEASE
        awaited[i] = 0;
#endif
        phase[i] = AWAITING;
        if
        :: awaited[i] == 0 -> begin(i)
        :: else
        fi;
        assert_kept(i) }
    :: d_step { life[i] == UP && phase[i] == AWAITING && (releases[awaited[i]] & (1 << i)) -> begin(i) }
    /* The session whose release was due has ended: an older one's is due, or none. */
    :: d_step { life[i] == UP && member[i] && phase[i] == AWAITING && READS_ABOUT(i) &&
               NAMED(i, known[i]) && DUE_TO(i, known[i]) != awaited[i] ->
        awaited[i] = DUE_TO(i, known[i]);
        if
        :: awaited[i] == 0 -> begin(i)
        :: else
        fi }

#endif
    /* A grant from the inbox: pushed with the release, or after a failover, where an older release may be due. */
    :: d_step { life[i] == UP && OPENED(i) && phase[i] != ASKING && granted[i] > known[i] && QUIET(i) &&
               NAMED(i, granted[i]) ->
        stop_following(i); known[i] = granted[i]; phase[i] = AWAITING;
        awaited[i] = DUE_TO(i, granted[i]);
        if
        :: awaited[i] == 0 -> begin(i)
        :: else
        fi;
        assert_kept(i) }

#ifndef NO_TRANSFERS
    /* A recall: stop sealing, then sign. One that waits itself obeys when it has what was due to it. */
    :: d_step { life[i] == UP && OPENED(i) && QUIET(i) && recalled[i] != 0 &&
               taker[recalled_for[i]] != NONE && phase[i] >= RELEASES_FROM && recalled[i] == known[i] ->
        released[i] = recalled[i];
        releases[recalled[i]] = releases[recalled[i]] | (1 << taker[recalled_for[i]]);
        known[i] = recalled_for[i]; stop_following(i);
        recalled[i] = 0; recalled_for[i] = 0 }
    /* It was released already, for one who did not get it: signed again. */
    :: d_step { life[i] == UP && OPENED(i) && phase[i] == FOLLOWING && recalled[i] != 0 &&
               taker[recalled_for[i]] != NONE && recalled[i] == released[i] ->
        releases[recalled[i]] = releases[recalled[i]] | (1 << taker[recalled_for[i]]);
        if
        :: known[i] < recalled_for[i] -> known[i] = recalled_for[i]
        :: else
        fi;
        recalled[i] = 0; recalled_for[i] = 0 }

#if DELETES
    /* A recall for nobody: stop sealing, then say so. Who waits for another's release says that it never will act. */
    :: d_step { life[i] == UP && OPENED(i) && QUIET(i) && recalled[i] != 0 && taker[recalled_for[i]] == NONE &&
               phase[i] != ASKING ->
        confirming[i] = recalled[i]; released[i] = recalled[i];
        if
        :: known[i] < recalled_for[i] -> known[i] = recalled_for[i]
        :: else
        fi;
#ifndef BUG_CONFIRMED_BEFORE_STOP
        stop_following(i);
#endif
        recalled[i] = 0; recalled_for[i] = 0 }
    :: d_step { confirming[i] != 0 && session[i] ->
        if
        :: deleted && IS_DUE(i, confirming[i]) -> drop_due(i); vanish()
        :: else
        fi;
        confirming[i] = 0 }
    /* Another one of the name, answered as a pull is. */
    :: d_step { !calm && life[i] == UP && OPENED(i) && phase[i] == FOLLOWING && absent && epoch < EPOCHS &&
               granted[i] <= known[i] ->
        absent = false; phase[i] = ASKING; epoch++; holder = i; taker[epoch] = i;
        answer[i] = epoch; answer_due[i] = 0;
        assert_kept(0); assert_kept(1); assert_kept(N - 1) }
#endif

    /* Push, or let go: stop sealing, then ask. */
    :: atomic { !calm && life[i] == UP && OPENED(i) && phase[i] == HOLDING && QUIET(i) && target[i] == NONE ->
        phase[i] = RELEASING; refused[i] = false;
#ifdef BUG_RELEASED_BEFORE_ANSWER
        released[i] = known[i];
#endif
        if
        :: target[i] = NONE
        :: i != 0 -> target[i] = 0
        :: i != 1 -> target[i] = 1
#if N > 2
        :: i != 2 -> target[i] = 2
#endif
        fi }
    :: d_step { phase[i] == RELEASING && session[i] && !refused[i] && holder == i && epoch == known[i] ->
        if
        :: target[i] == NONE -> holder = NONE; released[i] = known[i]; stop_following(i); clear_dues()
        :: target[i] != NONE && session[target[i]] && epoch < EPOCHS ->
            releases[epoch] = releases[epoch] | (1 << target[i]);
            epoch++; holder = target[i]; taker[epoch] = holder; granted[holder] = epoch;
            recalled[holder] = 0; recalled_for[holder] = 0; clear_dues();
            released[i] = known[i]; known[i] = epoch; stop_following(i)
        :: else -> refused[i] = true
        fi;
        assert_kept(0); assert_kept(1); assert_kept(N - 1) }
#ifdef BUG_FOLLOWS_NOW
    :: d_step { life[i] == UP && OPENED(i) && phase[i] == FOLLOWING && !followed[i] -> followed[i] = true }
#endif
    /* Refused for good, however late one hears of it: it goes on, unless it was recalled since. */
    :: d_step { life[i] == UP && member[i] && phase[i] == RELEASING && refused[i] -> target[i] = NONE; refused[i] = false;
        begin(i) }

#endif

#ifndef UNTIMED
    /* The sealing process reads the echo, checks, seals and sends. */
#ifdef FREEZE
    :: d_step { !calm && MAY_ACT(i) && armed[i] == 0 -> armed[i] = known[i]; armed_age[i] = 0 }
    :: d_step { life[i] != DEAD && armed[i] != 0 ->
#ifdef BUG_ECHO_AFTER_CHECK
        armed_age[i] = 0;
#endif
        assert(releases[armed[i]] == 0);
        send(armed[i], armed_age[i]); armed[i] = 0; armed_age[i] = 0 }
#else
    :: d_step { !calm && MAY_ACT(i) && flying[known[i]] != 1 -> send(known[i], 0) }
#endif
#endif

    /* kill -9 of the control process; what seals follows, at once or when it is no longer frozen. */
    :: d_step { !calm && life[i] == UP && crashes < CRASHES -> crashes++; life[i] = ORPHAN }
    :: d_step { life[i] == ORPHAN -> life[i] = DEAD; armed[i] = 0; armed_age[i] = 0; lease[i] = 0;
        stop_following(i); member[i] = false }
    /* The guardian ends the session when all that could act is dead. */
    :: atomic { session[i] && GUARDED(i) -> end_session(i); assert_kept(0); assert_kept(1); assert_kept(N - 1) }
    /* The server starts again, under its name, and knows nothing. */
    :: d_step { !calm && life[i] == DEAD && opens < OPENS -> life[i] = UP; known[i] = 0; released[i] = 0;
        answer[i] = 0; answer_due[i] = 0; forget_renewal(i) }
#ifdef BUG_OPEN_ENDS_EARLIER
    /* A second process opens a session under the name of one that lives. */
    :: atomic { session[i] && life[i] != DEAD -> end_session(i) }
#endif
    od
}

#if DELETES
/* The entity is deleted at an epoch of its own, and all who may act for it are recalled for nobody. */
proctype Master()
{
    do
    :: d_step { !calm && IS_THERE && deletes < DELETES && epoch < EPOCHS -> deletes++;
        if
        :: holder != NONE -> push_due(holder, epoch)
        :: else
        fi;
        epoch++; holder = NONE; taker[epoch] = NONE; deleted = true;
        for (k : 0 .. DUES - 1) {
            if
            :: due[k] != NONE -> recalled[due[k]] = due_epoch[k]; recalled_for[due[k]] = epoch
            :: else
            fi
        }
        k = 0;
#ifdef BUG_DELETED_AT_ONCE
        clear_dues();
#endif
        vanish();
        assert_kept(0); assert_kept(1); assert_kept(N - 1) }
    od
}
#endif

/* --- Receiver ------------------------------------------------------------------------------------------------------ */

/* S1, second half: nothing more of a holder whose session expired, once another one may act.
   S2: nothing of an older grant after a newer one, nothing whose echo is older than X. */
inline take(e) {
    assert(e >= accepted);
    assert(flying[e] - 1 <= X);
    for (k : 0 .. N - 1) {
        assert(!(ended & (1 << e)) || !(phase[k] == HOLDING && known[k] > e))
    }
    k = 0;
    accepted = e
}

#define TAKES_STATE(e) (flying[e] && FENCE(e) && FRESH(flying[e] - 1) && (!calm || accepted != e))

proctype Receiver()
{
    do
    :: d_step { fence < epoch -> fence = epoch }
    :: d_step { TAKES_STATE(1) -> take(1) }
#if EPOCHS > 1
    :: d_step { TAKES_STATE(2) -> take(2) }
#endif
#if EPOCHS > 2
    :: d_step { TAKES_STATE(3) -> take(3) }
#endif
#if EPOCHS > 3
    :: d_step { TAKES_STATE(4) -> take(4) }
#endif
    od
}

/* --- Clock --------------------------------------------------------------------------------------------------------- */

inline pass(slow) {
    for (k : 0 .. N - 1) {
        if
        :: k == slow || k == STEADY
        :: else ->
            if
            :: lease[k] > 0 -> lease[k]--
            :: else
            fi;
            if
            :: worth[k] == 1 -> forget_renewal(k)
            :: worth[k] > 1 -> worth[k]--
            :: else
            fi
        fi;
        if
        :: countdown[k] > 0 -> countdown[k]--
        :: else
        fi;
        if
        :: armed[k] != 0 && armed_age[k] <= X -> armed_age[k]++
        :: else
        fi
    }
    for (k : 1 .. EPOCHS) {
        if
        :: flying[k] != 0 && FRESH(flying[k]) ->
            if
            :: flying[k] <= X + 1 -> flying[k]++
            :: else
            fi
        :: else -> flying[k] = 0
        fi
    }
    k = 0
}

/* L1: faults have stopped, nobody is slow any more; whom the record names acts by then, or nobody is named. */
#if DELETES
#define GONE_FOR_GOOD (!deleted)
#else
#define GONE_FOR_GOOD true
#endif
#define SETTLED (GONE_FOR_GOOD && (holder == NONE || (MAY_ACT(holder) && known[holder] == epoch)))
#define SETTLED_IN (L + M + 1)

proctype Clock()
{
    do
#ifdef UNTIMED
#ifdef PROGRESS
    :: d_step { !calm -> calm = true }
    :: d_step { calm && timeout && !SETTLED -> assert(false) }
#endif
#else
    :: d_step { !calm -> pass(NONE);
        if
        :: slack > 0 -> slack--
        :: else
        fi }
#if SLOW < N
    :: d_step { !calm && slack == 0 -> pass(SLOW); slack = L }
#endif
#ifdef PROGRESS
    :: d_step { !calm -> calm = true; slack = 0 }
    /* A unit passes when nobody has anything left to do. */
    :: d_step { calm && calm_units < SETTLED_IN && timeout -> pass(NONE); calm_units++ }
    :: d_step { calm && calm_units == SETTLED_IN && timeout -> assert(SETTLED); calm_units++ }
#endif
#endif
#if !defined(PROGRESS) && defined(UNTIMED)
    :: false
#endif
    od
}

init {
    atomic {
        for (k : 0 .. N - 1) {
            session[k] = true; member[k] = true; lease[k] = L; countdown[k] = L + M; target[k] = NONE
        }
        for (k : 0 .. DUES - 1) {
            due[k] = NONE
        }
        epoch = 1; holder = 0; taker[1] = 0; known[0] = 1; phase[0] = HOLDING; fence = 1;
        for (k : 0 .. N - 1) {
            run Server(k);
            run Lessor(k)
        }
        k = 0; to = NONE;
#ifndef UNTIMED
        run Leaders();
        run Receiver();
#endif
#if DELETES
        run Master();
#endif
        run Clock()
    }
}
