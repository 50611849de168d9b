defmodule Parity.Verbs do
  @moduledoc """
  What is asked of each verb, in this order, on the tree of `seed/1`: as `{label, {verb, args}}`.

  The same steps are run by `khepri`, its variants with a bang, `khepri_adv`, `khepri_tx` and
  `khepri_tx_adv`. `verbs.py` has them in Python.
  """

  import Parity.Conditions
  alias Parity.Remote

  @doc "Below the root of a case: data, a node without any, one with children, a procedure."
  def seed(root) do
    for {names, data} <- [
          {["wood"], 1},
          {["iron"], %{"count" => 3}},
          {["iron", "bars"], "bars"},
          {["hall", "chair"], :oak},
          {[:stone], {1, [2]}},
          {["sell"], &:kb_demo_functions.change/2}
        ] do
      :ok = Remote.khepri(:put, [root ++ names, data])
    end
  end

  @doc "The steps of a verb below a root, which is also given as text."
  def steps(:get, root, text) do
    [
      {"data", {:get, [root ++ ["wood"]]}},
      {"a map", {:get, [root ++ ["iron"]]}},
      {"a tuple", {:get, [root ++ [:stone]]}},
      {"a node without data", {:get, [root ++ ["hall"]]}},
      {"a procedure", {:get, [root ++ ["sell"]]}},
      {"a path as text", {:get, [text <> "/iron/bars"]}},
      {"an atom in a text", {:get, [text <> "/:stone"]}},
      {"a missing node", {:get, [root ++ ["gold"]]}},
      {"below a missing node", {:get, [root ++ ["gold", "bars"]]}},
      {"a condition that holds", {:get, [root ++ [if_all(["wood", if_data_matches(1)])]]}},
      {"a condition that does not", {:get, [root ++ [if_all(["wood", if_data_matches(2)])]]}},
      {"a condition on a parent",
       {:get, [root ++ [if_all(["iron", if_has_data(false)]), "bars"]]}},
      {"possibly many nodes", {:get, [root ++ [if_name_matches()]]}},
      {"possibly many nodes as text", {:get, [text <> "/*"]}}
    ]
  end

  def steps(:get_many, root, text) do
    [
      {"children", {:get_many, [root ++ [if_name_matches()]]}},
      {"everything below", {:get_many, [root ++ [if_path_matches()]]}},
      {"children as text", {:get_many, [text <> "/*"]}},
      {"everything as text", {:get_many, [text <> "/**"]}},
      {"part of a name as text", {:get_many, [text <> "/*o*"]}},
      {"a regular expression", {:get_many, [root ++ [if_name_matches("^[wi]")]]}},
      {"a regular expression below", {:get_many, [root ++ [if_path_matches("^[bc]")]]}},
      {"one node", {:get_many, [root ++ ["wood"]]}},
      {"a missing node", {:get_many, [root ++ ["gold"]]}},
      {"a condition nothing meets", {:get_many, [root ++ [if_payload_version(99)]]}},
      {"with data", {:get_many, [root ++ [if_has_data(true)]]}}
    ]
  end

  def steps(:get_or, root, _text) do
    [
      {"data", {:get_or, [root ++ ["wood"], :none]}},
      {"a node without data", {:get_or, [root ++ ["hall"], :none]}},
      {"a missing node", {:get_or, [root ++ ["gold"], :none]}},
      {"a condition that does not hold",
       {:get_or, [root ++ [if_all(["wood", if_has_data(false)])], :none]}},
      {"possibly many nodes", {:get_or, [root ++ [if_name_matches()], :none]}}
    ]
  end

  def steps(:get_many_or, root, text) do
    [
      {"part of a name as text", {:get_many_or, [text <> "/*a*", :none]}},
      {"below", {:get_many_or, [root ++ ["hall", if_path_matches()], :none]}},
      {"a procedure", {:get_many_or, [root ++ ["sell"], :none]}},
      {"one node", {:get_many_or, [root ++ ["hall"], :none]}},
      {"a missing node", {:get_many_or, [root ++ ["gold"], :none]}}
    ]
  end

  def steps(verb, root, text) when verb in [:exists, :has_data, :is_sproc] do
    [
      {"data", {verb, [root ++ ["wood"]]}},
      {"a node without data", {verb, [text <> "/hall"]}},
      {"a procedure", {verb, [root ++ ["sell"]]}},
      {"a missing node", {verb, [root ++ ["gold"]]}},
      {"below a missing node", {verb, [root ++ ["gold", "bars"]]}},
      {"a condition that holds", {verb, [root ++ [if_all(["wood", if_payload_version(1)])]]}},
      {"a condition that does not",
       {verb, [root ++ [if_all(["wood", if_payload_version({:gt, 1})])]]}},
      {"possibly many nodes", {verb, [root ++ [if_name_matches()]]}}
    ]
  end

  def steps(:count, root, text) do
    [
      {"children", {:count, [root ++ [if_name_matches()]]}},
      {"everything below", {:count, [text <> "/**"]}},
      {"one node", {:count, [root ++ ["wood"]]}},
      {"a missing node", {:count, [root ++ ["gold"]]}},
      {"with children", {:count, [root ++ [if_child_list_length({:ge, 1})]]}}
    ]
  end

  def steps(:put, root, text) do
    kept = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}
    relative = %{keep_while: %{[?^, "iron"] => if_child_list_length({:gt, 0})}}
    unmet = %{keep_while: %{(root ++ ["gold"]) => if_node_exists(true)}}

    [
      {"a new node", {:put, [root ++ ["gold"], 5]}},
      {"new data", {:put, [root ++ ["wood"], 2]}},
      {"the same data", {:put, [root ++ ["wood"], 2]}},
      {"data of another type", {:put, [root ++ ["wood"], 2.0]}},
      {"over a procedure", {:put, [root ++ ["sell"], 1]}},
      {"below a new parent", {:put, [text <> "/silver/bars", "b"]}},
      {"a condition that holds",
       {:put, [root ++ [if_all(["wood", if_payload_version({:ge, 2})])], 3]}},
      {"a condition that does not",
       {:put, [root ++ [if_all(["wood", if_payload_version(99)])], 4]}},
      {"a condition on a missing node",
       {:put, [root ++ [if_all(["tin", if_node_exists(true)])], 4]}},
      {"possibly many nodes", {:put, [root ++ [if_name_matches()], 4]}},
      {"kept while another exists", {:put, [root ++ ["kept"], 1, kept]}},
      {"kept while a sibling has children", {:put, [root ++ ["related"], 1, relative]}},
      {"kept while a sibling of its parent exists",
       {:put,
        [root ++ ["iron", "leaf"], 1, %{keep_while: %{"../../wood" => if_node_exists(true)}}]}},
      {"what keeps it goes", {:delete, [root ++ ["gold"]]}},
      {"kept while what is not there", {:put, [root ++ ["never"], 1, unmet]}},
      {"what the first is kept by goes", {:delete, [root ++ ["wood"]]}},
      {"what the second is kept by goes", {:delete, [root ++ ["iron", "bars"]]}}
    ]
  end

  def steps(:put_many, root, text) do
    kept = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}

    [
      {"children", {:put_many, [root ++ [if_name_matches()], 7]}},
      {"part of a name as text", {:put_many, [text <> "/*o*", 8]}},
      {"with data below", {:put_many, [root ++ ["iron", if_has_data(true)], 9]}},
      {"a new node", {:put_many, [root ++ ["gold"], 1]}},
      {"nothing matches", {:put_many, [root ++ [if_payload_version(99)], 1]}},
      {"kept while another exists", {:put_many, [root ++ ["kept"], 1, kept]}},
      {"what it is kept by goes", {:delete, [root ++ ["wood"]]}}
    ]
  end

  def steps(:create, root, text) do
    kept = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}

    [
      {"a new node", {:create, [root ++ ["gold"], 1]}},
      {"it again", {:create, [root ++ ["gold"], 2]}},
      {"over a node without data", {:create, [root ++ ["hall"], 2]}},
      {"below new parents", {:create, [text <> "/silver/bars/small", 3]}},
      {"possibly many nodes", {:create, [root ++ [if_name_matches()], 3]}},
      {"kept while another exists", {:create, [root ++ ["kept"], 1, kept]}},
      {"what it is kept by goes", {:delete, [root ++ ["wood"]]}}
    ]
  end

  def steps(:update, root, text) do
    kept = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}

    [
      {"data", {:update, [root ++ ["wood"], 2]}},
      {"a node without data", {:update, [text <> "/hall", 2]}},
      {"a procedure", {:update, [root ++ ["sell"], 2]}},
      {"a missing node", {:update, [root ++ ["gold"], 2]}},
      {"below a missing node", {:update, [root ++ ["gold", "bars"], 2]}},
      {"a condition that does not hold",
       {:update, [root ++ [if_all(["wood", if_data_matches(99)])], 2]}},
      {"possibly many nodes", {:update, [root ++ [if_name_matches()], 2]}},
      {"kept while another exists", {:update, [root ++ ["iron"], 1, kept]}},
      {"what it is kept by goes", {:delete, [root ++ ["wood"]]}}
    ]
  end

  def steps(:compare_and_swap, root, text) do
    kept = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}

    [
      {"what it is", {:compare_and_swap, [root ++ ["wood"], 1, 2]}},
      {"what it was", {:compare_and_swap, [root ++ ["wood"], 1, 3]}},
      {"an equal number of another type", {:compare_and_swap, [root ++ ["wood"], 2.0, 3]}},
      {"a map", {:compare_and_swap, [text <> "/iron", %{"count" => 3}, %{"count" => 4}]}},
      {"a tuple", {:compare_and_swap, [root ++ [:stone], {1, [2]}, {}]}},
      {"an atom", {:compare_and_swap, [root ++ ["hall", "chair"], :oak, :ash]}},
      {"a node without data", {:compare_and_swap, [root ++ ["hall"], 1, 2]}},
      {"a procedure", {:compare_and_swap, [root ++ ["sell"], 1, 2]}},
      {"a missing node", {:compare_and_swap, [root ++ ["gold"], 1, 2]}},
      {"below a missing node", {:compare_and_swap, [root ++ ["gold", "bars"], 1, 2]}},
      {"possibly many nodes", {:compare_and_swap, [root ++ [if_name_matches()], 1, 2]}},
      {"kept while another exists",
       {:compare_and_swap, [root ++ ["iron"], %{"count" => 4}, 1, kept]}},
      {"what it is kept by goes", {:delete, [root ++ ["wood"]]}}
    ]
  end

  def steps(:delete, root, text) do
    [
      {"data", {:delete, [root ++ ["wood"]]}},
      {"it again", {:delete, [root ++ ["wood"]]}},
      {"the only child", {:delete, [root ++ ["hall", "chair"]]}},
      {"with children", {:delete, [text <> "/iron"]}},
      {"a procedure", {:delete, [root ++ ["sell"]]}},
      {"below a missing node", {:delete, [root ++ ["gold", "bars"]]}},
      {"a condition that does not hold",
       {:delete, [root ++ [if_all([:stone, if_has_data(false)])]]}},
      {"possibly many nodes", {:delete, [root ++ [if_name_matches()]]}},
      {"a condition that holds", {:delete, [root ++ [if_all([:stone, if_has_data(true)])]]}}
    ]
  end

  def steps(:delete_many, root, text) do
    [
      {"nothing matches", {:delete_many, [root ++ [if_payload_version(99)]]}},
      {"a missing node", {:delete_many, [root ++ ["gold"]]}},
      {"part of a name as text", {:delete_many, [text <> "/*l*"]}},
      {"below", {:delete_many, [root ++ ["iron", if_name_matches()]]}},
      {"children", {:delete_many, [root ++ [if_name_matches()]]}}
    ]
  end

  def steps(:clear_payload, root, text) do
    [
      {"data", {:clear_payload, [root ++ ["wood"]]}},
      {"it again", {:clear_payload, [root ++ ["wood"]]}},
      {"with children", {:clear_payload, [text <> "/iron"]}},
      {"a procedure", {:clear_payload, [root ++ ["sell"]]}},
      {"a node without data", {:clear_payload, [root ++ ["hall"]]}},
      {"a missing node", {:clear_payload, [root ++ ["gold"]]}},
      {"a condition that does not hold",
       {:clear_payload, [root ++ [if_all([:stone, if_has_data(false)])]]}},
      {"possibly many nodes", {:clear_payload, [root ++ [if_name_matches()]]}}
    ]
  end

  def steps(:clear_many_payloads, root, text) do
    [
      {"part of a name as text", {:clear_many_payloads, [text <> "/*o*"]}},
      {"children", {:clear_many_payloads, [root ++ [if_name_matches()]]}},
      {"nothing matches", {:clear_many_payloads, [root ++ [if_payload_version(99)]]}},
      {"a missing node", {:clear_many_payloads, [root ++ ["gold"]]}},
      {"it is not made", {:get, [root ++ ["gold"]]}},
      {"whatever is there", {:delete_many, [root ++ ["gold"]]}}
    ]
  end
end
