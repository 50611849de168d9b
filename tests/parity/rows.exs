defmodule Parity.Rows do
  @moduledoc "Cases that are no verb of several modules; `rows.py` has them in Python."

  import Parity.Conditions
  alias Parity.{Member, Paths, Remote, Verbs}

  def run("khepri:get_store_ids", _, _), do: [stores: Remote.call(:khepri, :get_store_ids, [])]

  def run("khepri:is_empty", root, _) do
    Verbs.seed(root)
    [empty: Remote.khepri(:is_empty, [])]
  end

  def run("khepri_tx:is_empty", root, _) do
    Verbs.seed(root)
    [empty: Remote.khepri_tx(:is_empty, [])]
  end

  def run("khepri:fold", root, _) do
    numbers(root)
    sum = &:kb_demo_functions.sum/3

    [
      sum: Remote.khepri(:fold, [root ++ [if_path_matches()], sum, 10]),
      nothing: Remote.khepri(:fold, [root ++ ["gold"], sum, 10]),
      raises: Remote.khepri(:fold, [root ++ [if_name_matches()], sum, :none])
    ]
  end

  def run("khepri:foreach", root, _) do
    numbers(root)
    function = &:kb_demo_functions.double/2

    [
      each: Remote.khepri(:foreach, [root ++ [if_name_matches()], function]),
      nothing: Remote.khepri(:foreach, [root ++ ["gold"], function])
    ]
  end

  def run("khepri:map", root, _) do
    numbers(root)
    function = &:kb_demo_functions.double/2

    [
      each: Remote.khepri(:map, [root ++ [if_name_matches()], function]),
      nothing: Remote.khepri(:map, [root ++ ["gold"], function])
    ]
  end

  def run("khepri:filter", root, _) do
    numbers(root)
    function = &:kb_demo_functions.is_even/2

    [
      each: Remote.khepri(:filter, [root ++ [if_name_matches()], function]),
      nothing: Remote.khepri(:filter, [root ++ ["gold"], function])
    ]
  end

  def run("khepri:run_sproc", root, _) do
    Verbs.seed(root)

    [
      value: Remote.khepri(:run_sproc, [root ++ ["sell"], [1, [2, 3]]]),
      raises: Remote.khepri(:run_sproc, [root ++ ["sell"], [1, :none]]),
      data: Remote.khepri(:run_sproc, [root ++ ["wood"], []]),
      missing: Remote.khepri(:run_sproc, [root ++ ["gold"], []])
    ]
  end

  def run("khepri:transaction", root, _) do
    count = root ++ ["count"]
    add = &:kb_demo_functions.add/2
    read = &:kb_demo_functions.read/1
    change = &:kb_demo_functions.change/2
    :ok = Remote.khepri(:put, [root ++ ["add"], add])

    [
      counts: Remote.khepri(:transaction, [add, [count, 5]]),
      "counts again": Remote.khepri(:transaction, [add, [count, 2], :rw]),
      reads: Remote.khepri(:transaction, [read, [count], :ro]),
      "reads nothing": Remote.khepri(:transaction, [read, [root ++ ["gold"]], :auto]),
      aborts: Remote.khepri(:transaction, [add, [count, -8]]),
      raises: Remote.khepri(:transaction, [change, [1, :none]]),
      "writes where it may not": Remote.khepri(:transaction, [add, [count, 1], :ro]),
      "a procedure": Remote.khepri(:transaction, [root ++ ["add"], [count, 4]]),
      "no procedure": Remote.khepri(:transaction, [root ++ ["gold"], [count, 4]]),
      "no procedure either": Remote.khepri(:transaction, [count, [count, 4]])
    ]
  end

  def run("khepri_tx:abort", root, _) do
    Verbs.seed(root)
    args = [root ++ ["wood"], 2, {:too, "much"}]
    [aborted: Remote.khepri(:transaction, [&Member.put_and_abort/3, args, :rw])]
  end

  def run("khepri:fence", root, _) do
    :ok = Remote.khepri(:put, [root, 1])
    [fenced: Remote.khepri(:fence, []), read: Remote.khepri(:get, [root])]
  end

  def run("khepri:handle_async_ret", root, _) do
    writes = [
      {1, {:put, root ++ ["wood"], 1}},
      {2, {:put, root ++ ["wood"], 2}},
      {3, {:delete, root ++ ["gold"]}},
      {4, {:put, root ++ ["iron", "bars"], 3}},
      {5, {:delete, root ++ ["iron"]}}
    ]

    for {correlation, result} <- Remote.call(Member, :async, [Remote.store(), writes]) do
      {to_string(correlation), result}
    end
  end

  def run("khepri:export", root, file) do
    Verbs.seed(root)
    Remote.khepri(:delete, [root ++ ["sell"]])
    pattern = root ++ [if_path_matches()]
    args = [pattern, :khepri_export_erlang, String.to_charlist(file)]
    [exported: Remote.khepri(:export, args)]
  end

  def run("khepri:import", _, file) do
    [imported: Remote.khepri(:import, [:khepri_export_erlang, String.to_charlist(file)])]
  end

  def run("khepri_import_export:export", root, file) do
    Verbs.seed(root)
    Remote.khepri(:delete, [root ++ ["sell"]])

    args = [
      Remote.store(),
      root ++ [if_path_matches()],
      :khepri_export_erlang,
      String.to_charlist(file)
    ]

    [exported: Remote.call(:khepri_import_export, :export, args)]
  end

  def run("khepri_import_export:import", _, file) do
    args = [Remote.store(), :khepri_export_erlang, String.to_charlist(file)]
    [imported: Remote.call(:khepri_import_export, :import, args)]
  end

  def run("khepri:info", root, name) do
    :ok = Remote.khepri(:put, [root ++ ["wood"], 1])
    kept = root ++ ["kept"]
    condition = %{keep_while: %{(root ++ ["wood"]) => if_node_exists(true)}}
    :ok = Remote.khepri(:put, [kept, 1, condition])
    printed = printed(fn -> :ok = Remote.khepri(:info, []) end)
    sections = String.split(printed, ~r/\e\[1;32m== (.*) ==\e\[0m/, include_captures: true)

    [
      members: section(sections, "CLUSTER MEMBERS"),
      kept: String.contains?(Enum.join(section(sections, "LIFETIME DEPS")), Enum.at(root, 1)),
      projection:
        name in for(line <- section(sections, "PROJECTIONS"), do: String.trim(line, ":"))
    ]
  end

  def run("khepri:register_trigger", root, _) do
    :ok = Remote.khepri(:put, [root ++ ["told"], &Member.told/1])

    register = fn id, filter ->
      Remote.khepri(:register_trigger, [id, filter, root ++ ["told"]])
    end

    registered = [
      all: register.(:parity_all, root ++ ["watched"]),
      deletion: register.(:parity_deletion, tree(root ++ ["quiet"], %{on_actions: [:delete]}))
    ]

    touch(root)
    [{:events, events(root, 4)} | registered]
  end

  def run("khepri_evf:tree", root, _) do
    :ok = Remote.khepri(:put, [root ++ ["told"], &Member.told/1])
    filter = tree(root ++ ["watched"], %{on_actions: [:create, :delete], priority: 7})
    registered = Remote.khepri(:register_trigger, [:parity_tree, filter, root ++ ["told"]])
    touch(root)
    [registered: registered, events: events(root, 2)]
  end

  def run("khepri_evf:set_priority", root, _) do
    :ok = Remote.khepri(:put, [root ++ ["told"], &Member.told/1])
    :ok = Remote.khepri(:put, [root ++ ["also"], &Member.told_as_well/1])

    for {id, procedure, priority} <- [{:parity_low, "told", 1}, {:parity_high, "also", 2}] do
      filter = tree(root ++ ["watched"], %{on_actions: [:create]})
      filter = Remote.call(:khepri_evf, :set_priority, [filter, priority])
      :ok = Remote.khepri(:register_trigger, [id, filter, root ++ [procedure]])
    end

    touch(root)
    [events: events(root, 2)]
  end

  def run("khepri:register_projection", root, name) do
    numbers(root)
    index = new([name, &:kb_demo_functions.index/2])
    registered = Remote.khepri(:register_projection, [root ++ [if_name_matches()], index])
    again = Remote.khepri(:register_projection, [root ++ [if_name_matches()], index])
    :ok = Remote.khepri(:put, [root ++ ["five"], 5])
    :ok = Remote.khepri(:delete, [root ++ ["two"]])
    objects = Remote.call(:ets, :tab2list, [name])
    found = Remote.call(:ets, :lookup, [name, "five"])
    [registered: registered, again: again, objects: Enum.sort(objects), found: found]
  end

  def run("khepri_projection:new", root, name) do
    for {names, data} <- [{["a"], {1, :x}}, {["b"], {2, :x}}, {["c"], {3, :y}}] do
      :ok = Remote.khepri(:put, [root ++ names, data])
    end

    copy = new([name, :copy, %{type: :bag, keypos: 2}])
    registered = Remote.khepri(:register_projection, [root ++ [if_name_matches()], copy])
    found = Remote.call(:ets, :lookup, [name, :x])
    table = for item <- [:type, :keypos], do: Remote.call(:ets, :info, [name, item])
    [registered: registered, found: Enum.sort(found), table: table]
  end

  def run("khepri:has_projection", root, name) do
    projection(root, name)

    [
      there: Remote.khepri(:has_projection, [name]),
      missing: Remote.khepri(:has_projection, [:parity_no_projection])
    ]
  end

  def run("khepri:unregister_projections", root, name) do
    projection(root, name)

    [
      gone: Remote.khepri(:unregister_projections, [[name, :parity_no_projection]]),
      there: Remote.khepri(:has_projection, [name]),
      again: Remote.khepri(:unregister_projections, [[name]])
    ]
  end

  def run("khepri_adv:unregister_projections", root, name) do
    projection(root, name)

    {:ok, gone} =
      Remote.call(:khepri_adv, :unregister_projections, [
        Remote.store(),
        [name, :parity_no_projection]
      ])

    {:ok, again} = Remote.call(:khepri_adv, :unregister_projections, [Remote.store(), [name]])
    [gone: length(Map.keys(gone)), again: length(Map.keys(again))]
  end

  def run("khepri_cluster:" <> function, _, _), do: [found: cluster(function)]

  def run("khepri_path:" <> function, _, arguments), do: Paths.run(function, arguments)

  def run("khepri_condition:is_valid", _, _) do
    for {label, condition} <- [
          {"an atom", :wood},
          {"a binary", "wood"},
          {"a number", 3},
          {"a map", %{}},
          {"any name", if_name_matches()},
          {"a regular expression", if_name_matches("^w")},
          {"data", if_data_matches(%{a: :_})},
          {"a comparison", if_payload_version({:ge, 3})},
          {"no comparison", if_payload_version({:near, 3})},
          {"no flag", if_has_data(:maybe)},
          {"not", if_not(if_has_data(true))},
          {"not what is none", if_not(3)},
          {"all", if_all(["wood", if_has_data(true)])},
          {"all of nothing", if_all([])},
          {"all of what is none", if_all([3])},
          {"any of nothing", if_any([])}
        ] do
      {label, Remote.call(:khepri_condition, :is_valid, [condition]) == true}
    end
  end

  def run("khepri_payload:none", root, _) do
    Verbs.seed(root)
    none = Remote.call(:khepri_payload, :none, [])
    [cleared: Remote.khepri(:put, [root ++ ["wood"], none])]
  end

  def run("khepri_payload:data", root, _) do
    data = Remote.call(:khepri_payload, :data, [{:oak, 3}])
    [put: Remote.khepri(:put, [root ++ ["wood"], data])]
  end

  def run("khepri_payload:sproc", root, _) do
    procedure =
      :erpc.call(Remote.member(), :khepri_payload, :sproc, [&:kb_demo_functions.change/2])

    [
      put: Remote.khepri(:put, [root ++ ["sell"], procedure]),
      value: Remote.khepri(:run_sproc, [root ++ ["sell"], [1, [2]]])
    ]
  end

  # The rest are options and conditions, on the tree that verbs are run on.
  def run(name, root, _) do
    Verbs.seed(root)
    seeded(name, root)
  end

  defp seeded("favor", root) do
    for favor <- [:low_latency, :consistency] do
      :ok = Remote.khepri(:put, [root ++ ["wood"], favor])
      {favor, Remote.khepri(:get, [root ++ ["wood"], %{favor: favor}])}
    end
  end

  defp seeded("expect_specific_node", root) do
    options = %{expect_specific_node: true}

    [
      one: Remote.khepri(:get_many, [root ++ ["wood"], options]),
      many: Remote.khepri(:get_many, [root ++ [if_name_matches()], options]),
      missing: Remote.khepri(:get_many, [root ++ ["gold"], options]),
      count: Remote.khepri(:count, [root ++ ["wood"], options])
    ]
  end

  defp seeded("include_root_props", _root) do
    root = [?/]

    [
      without: Map.has_key?(elem(Remote.khepri(:get_many, [root, %{}]), 1), []),
      with:
        Map.has_key?(elem(Remote.khepri(:get_many, [root, %{include_root_props: true}]), 1), [])
    ]
  end

  defp seeded("props", root) do
    for props <- [
          [],
          [:payload],
          [:payload_version, :child_list_version],
          [:child_list_length, :child_names],
          [:has_payload]
        ] do
      options = %{props_to_return: props}
      {inspect(props), Remote.khepri_adv(:get_many, [root ++ [if_path_matches()], options])}
    end
  end

  defp seeded("if_name_matches", root) do
    found(root, any: if_name_matches(), regex: if_name_matches("o"), none: if_name_matches("^x"))
  end

  defp seeded("if_path_matches", root) do
    found(root,
      any: if_path_matches(),
      regex: if_path_matches("a.*r"),
      none: if_path_matches("^x")
    )
  end

  defp seeded("if_has_payload", root) do
    found(root, yes: if_has_payload(true), no: if_has_payload(false))
  end

  defp seeded("if_has_data", root),
    do: found(root, yes: if_has_data(true), no: if_has_data(false))

  defp seeded("if_has_sproc", root),
    do: found(root, yes: if_has_sproc(true), no: if_has_sproc(false))

  defp seeded("if_data_matches", root) do
    found(root,
      number: if_data_matches(1),
      float: if_data_matches(1.0),
      anything: if_data_matches(:_),
      tuple: if_data_matches({:"$1", :_}, [{:<, :"$1", 2}]),
      "part of a map": if_data_matches(%{"count" => :"$1"}, [{:>=, :"$1", 3}]),
      "part of a map that does not hold": if_data_matches(%{"count" => :"$1"}, [{:>, :"$1", 3}]),
      kind: if_data_matches(:"$1", [{:is_atom, :"$1"}]),
      either: if_data_matches(:"$1", [{:orelse, {:"=:=", :"$1", 1}, {:"=:=", :"$1", {{1, [2]}}}}])
    )
  end

  defp seeded("if_node_exists", root) do
    path = fn name, expected -> [root ++ [if_all([name, if_node_exists(expected)])], 2] end

    found(root, yes: if_node_exists(true), no: if_node_exists(false)) ++
      [
        "put where there is one": Remote.khepri(:put, path.("wood", true)),
        "put where there is one already": Remote.khepri(:put, path.("wood", false)),
        "put where there is none": Remote.khepri(:put, path.("gold", true)),
        "put a new one": Remote.khepri(:put, path.("gold", false))
      ]
  end

  defp seeded("if_payload_version", root) do
    :ok = Remote.khepri(:put, [root ++ ["wood"], 2])
    compared(root, &if_payload_version/1, 2)
  end

  defp seeded("if_child_list_version", root) do
    :ok = Remote.khepri(:put, [root ++ ["iron", "nails"], 2])
    compared(root, &if_child_list_version/1, 2)
  end

  defp seeded("if_child_list_length", root), do: compared(root, &if_child_list_length/1, 1)

  defp seeded("if_not", root) do
    found(root,
      data: if_not(if_has_data(true)),
      name: if_not("wood"),
      twice: if_not(if_not("wood"))
    )
  end

  defp seeded("if_all", root) do
    found(root,
      both: if_all([if_name_matches("o"), if_has_data(true)]),
      one: if_all(["wood"]),
      none: if_all([]),
      never: if_all(["wood", "iron"])
    )
  end

  defp seeded("if_any", root) do
    found(root,
      names: if_any(["wood", :stone]),
      either: if_any([if_has_sproc(true), if_child_list_length({:gt, 0})]),
      none: if_any([])
    )
  end

  defp seeded("KHEPRI_ROOT_NODE", root) do
    for {label, path} <- [
          root: [?/ | root] ++ ["wood"],
          this: root ++ [?., "wood", ?.],
          parent: root ++ ["iron", ?^, "wood"]
        ] do
      {label, Remote.khepri(:get, [path])}
    end
  end

  @doc "What so many triggers below a root told, in the order it came."
  def events(_root, 0), do: []

  def events(root, count) do
    receive do
      {name, path, action} when name in [:told, :told_as_well] ->
        if List.starts_with?(path, root) do
          [{name, Enum.drop(path, length(root)), action} | events(root, count - 1)]
        else
          events(root, count)
        end
    after
      10_000 -> [:missing]
    end
  end

  defp touch(root) do
    for name <- ["watched", "quiet", "other"] do
      :ok = Remote.khepri(:put, [root ++ [name], 1])
      :ok = Remote.khepri(:put, [root ++ [name], 2])
      :ok = Remote.khepri(:delete, [root ++ [name]])
    end
  end

  defp tree(path, props), do: Remote.call(:khepri_evf, :tree, [path, props])

  defp numbers(root) do
    for {name, number} <- [{"one", 1}, {"two", 2}, {"three", 3}, {"four", 4}] do
      :ok = Remote.khepri(:put, [root ++ [name], number])
    end
  end

  # Whole, with the code that is shown elsewhere.
  defp new(args), do: :erpc.call(Remote.member(), :khepri_projection, :new, args)

  defp projection(root, name) do
    index = new([name, &:kb_demo_functions.index/2])
    :ok = Remote.khepri(:register_projection, [root ++ [if_name_matches()], index])
  end

  defp cluster("is_store_running") do
    Remote.call(:khepri_cluster, :is_store_running, [Remote.store()])
  end

  defp cluster("get_store_ids"), do: Remote.call(:khepri_cluster, :get_store_ids, [])
  defp cluster("this_member"), do: Remote.call(:khepri_cluster, :this_member, [Remote.store()])

  defp cluster(function),
    do: Remote.call(:khepri_cluster, String.to_atom(function), [Remote.store()])

  defp found(root, conditions) do
    for {label, condition} <- conditions do
      {label, Remote.khepri(:get_many, [root ++ [condition]])}
    end
  end

  defp compared(root, condition, number) do
    exact = [{"a number", condition.(number)}]
    more = for name <- [:eq, :ne, :lt, :le, :gt, :ge], do: {name, condition.({name, number})}
    found(root, exact ++ more)
  end

  defp printed(function) do
    {:ok, device} = StringIO.open("")
    before = Process.group_leader()
    Process.group_leader(self(), device)
    function.()
    Process.group_leader(self(), before)
    {_, text} = StringIO.contents(device)
    text
  end

  # The lines of a part of what `khepri:info/1` prints.
  defp section(parts, title) do
    case Enum.drop_while(parts, &(not String.contains?(&1, title))) do
      [_, lines | _] -> lines |> String.split("\n", trim: true)
      _ -> []
    end
  end
end
