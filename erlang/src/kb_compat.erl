%% What differs between the versions of Khepri that this application runs on, 0.16 to 0.18: nobody else asks for a
%% version. One source is compiled against each of them.
-module(kb_compat).

-export([transaction_options/1]).

%% Compiled against one version, of which it knows the number.
-dialyzer({no_match, transaction_options/1}).

%% Khepri 0.18.0 and 0.18.1, whose machine has version 3, exit on this option wherever it stands.
-define(REFUSES_PROTECTION, 3).

%% Options of a read-write transaction whose command carries an operation id of its own. Khepri's protection
%% against duplicates would cost a second log entry; where it cannot be turned off it is harmless.
-spec transaction_options(pos_integer()) -> khepri:command_options().
transaction_options(Timeout) ->
    case khepri_machine:version() < ?REFUSES_PROTECTION of
        true -> #{timeout => Timeout, protect_against_dups => false};
        false -> #{timeout => Timeout}
    end.
