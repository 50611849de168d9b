/*
 * Escrow between two instances, docs/protocol.md §11, for one entity that goes there and back, checked exhaustively
 * with Spin. docs/authority-model.md says what is modelled; scripts/model-check runs it and its seeded defects (BUG_*).
 *
 * Messages. One that was sent may arrive at any later moment, again, or never: a bit for each says that it was sent,
 * and receiving does not clear it. That is loss, delay, duplication, reordering and replay.
 * Couriers and crashes. A courier keeps nothing: each of its steps depends on the tree alone. So a crash at any step is
 * to take no further step for a while, or to take one twice, and both are among the runs.
 * Numbers. A transfer's is its place among its instance's, since all that matters is that they rise.
 */

#ifndef T
#define T 3                 /* transfers that each instance begins */
#endif

#define HERE 0              /* the entity is the instance's */
#define ESCROW 1            /* in its escrow, for the other */
#define GONE 2

#define NONE 0
#define ACCEPTED 1
#define REFUSED 2

#define OTHER(i) (1 - i)
#define AT(i, t) ((i) * (T + 1) + (t))

/* Of the giver: where the entity is, the number of its last transfer, whether it wants it back, what is closed. */
byte state[2];
byte number[2];
bool cancelling[2];
byte closed[2];

/* Of the receiver, by giver: what it decided, and up to where all is over. */
byte answer[2 * (T + 1)];
byte mark[2];

/* Sent, by giver. */
bool offered[2 * (T + 1)];
bool cancelled[2 * (T + 1)];
bool accepted[2 * (T + 1)];
bool refused[2 * (T + 1)];
bool settling[2 * (T + 1)];

byte places;

#define COUNT(i) (state[i] == HERE -> 1 : ((state[i] == ESCROW && answer[AT(i, number[i])] != ACCEPTED) -> 1 : 0))

/* In every state the entity is exactly one of: an instance's, in an instance's escrow. */
inline assert_whole() {
    places = COUNT(0) + COUNT(1);
    assert(places == 1)
}

inline tell(i, t) {
    if
    :: answer[AT(i, t)] == ACCEPTED -> accepted[AT(i, t)] = true
    :: answer[AT(i, t)] == REFUSED -> refused[AT(i, t)] = true
    fi
}

/* What is told of a transfer whose answer was forgotten: nothing that its giver would act on. */
#ifdef BUG_ESCROW_FORGETS
#define IS_OVER(i, t) false
#else
#define IS_OVER(i, t) (t <= mark[i])
#endif

inline receive_offer(i, t) {
    if
    :: IS_OVER(i, t) -> skip
    :: !IS_OVER(i, t) && answer[AT(i, t)] != NONE -> tell(i, t)
    :: !IS_OVER(i, t) && answer[AT(i, t)] == NONE ->
        if
        :: state[OTHER(i)] == HERE -> answer[AT(i, t)] = REFUSED; tell(i, t)
        :: state[OTHER(i)] == ESCROW -> skip    /* its own courier has yet to hear */
        :: state[OTHER(i)] == GONE -> state[OTHER(i)] = HERE; answer[AT(i, t)] = ACCEPTED; tell(i, t)
        :: state[OTHER(i)] == GONE -> answer[AT(i, t)] = REFUSED; tell(i, t)
        fi
    fi
}

inline receive_cancel(i, t) {
    if
    :: IS_OVER(i, t) -> skip
    :: !IS_OVER(i, t) && answer[AT(i, t)] != NONE -> tell(i, t)
#ifdef BUG_ESCROW_CANCEL_UNKEPT
    :: !IS_OVER(i, t) && answer[AT(i, t)] == NONE -> refused[AT(i, t)] = true
#else
    :: !IS_OVER(i, t) && answer[AT(i, t)] == NONE -> answer[AT(i, t)] = REFUSED; tell(i, t)
#endif
    fi
}

#ifdef BUG_ESCROW_ANY_ANSWER
#define IS_OPEN(i, t) (state[i] == ESCROW)
#else
#define IS_OPEN(i, t) (state[i] == ESCROW && number[i] == t)
#endif

inline close(i, t, to) {
    if
    :: IS_OPEN(i, t) -> state[i] = to; closed[i] = number[i]; cancelling[i] = false
    :: !IS_OPEN(i, t) -> skip
    fi
}

inline settle(i, t) {
    if
    :: t > mark[i] ->
        do
        :: mark[i] < t -> mark[i]++; answer[AT(i, mark[i])] = NONE
        :: mark[i] >= t -> break
        od
    :: t <= mark[i] -> skip
    fi
}

/* One instance as a giver, and what the other does with what it says: every step is one transaction of one of them. */
proctype Giver(byte i) {
    byte t;
    do
    :: atomic { state[i] == HERE && number[i] < T ->
            number[i]++; state[i] = ESCROW; cancelling[i] = false; assert_whole() }
    :: atomic { state[i] == ESCROW && !cancelling[i] -> cancelling[i] = true }
    :: atomic { state[i] == ESCROW && !cancelling[i] && !offered[AT(i, number[i])] ->
            offered[AT(i, number[i])] = true }
    :: atomic { state[i] == ESCROW && cancelling[i] && !cancelled[AT(i, number[i])] ->
            cancelled[AT(i, number[i])] = true }
#ifdef BUG_ESCROW_TAKES_BACK
    :: atomic { state[i] == ESCROW && cancelling[i] -> state[i] = HERE; closed[i] = number[i]; assert_whole() }
#endif
    :: atomic { closed[i] > 0 && !settling[AT(i, closed[i])] -> settling[AT(i, closed[i])] = true }
    :: atomic { select(t : 1 .. T);
            if
            :: offered[AT(i, t)] -> receive_offer(i, t)
            :: cancelled[AT(i, t)] -> receive_cancel(i, t)
            :: accepted[AT(i, t)] -> close(i, t, GONE)
            :: refused[AT(i, t)] -> close(i, t, HERE)
            :: settling[AT(i, t)] -> settle(i, t)
            :: else -> skip
            fi;
            t = 0;
            assert_whole() }
    od
}

init {
    atomic {
        state[0] = HERE;
        state[1] = GONE;
        run Giver(0);
        run Giver(1)
    }
}
