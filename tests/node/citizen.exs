# What an Elixir program does with a node of Erlang, done with one of Python; see test_citizen.py.

defmodule Watching do
  def await_end(reference) do
    receive do
      {:DOWN, ^reference, :process, _, reason} -> reason
    after
      5_000 -> raise "no DOWN"
    end
  end

  def caught_exit(function) do
    function.()
  catch
    :exit, why -> why
  end
end

[name] = System.argv()
py = String.to_atom(name)

true = Node.connect(py)
:pong = Node.ping(py)
true = py in Node.list(:hidden)

# Functions.
3 = :rpc.call(py, :calculator, :add, [1, 2])
3 = :erpc.call(py, :calculator, :add, [1, 2])
"hello world" = :rpc.call(py, Greeter, :hello, ["world"])
{:badrpc, {:EXIT, {:undef, _}}} = :rpc.call(py, Greeter, :goodbye, [])

caught =
  try do
    :erpc.call(py, :calculator, :raise, [])
  rescue
    error in ErlangError -> error.original
  end

{:exception, {:python, "ValueError", "no"}, [{:calculator, :raise, [], []}]} = caught

# A server.
{:ok, 1} = GenServer.call({:counter, py}, :next)
:ok = GenServer.cast({:counter, py}, 41)
{:ok, 42} = GenServer.call({:counter, py}, :next, 5_000)
# OTP 25 hands on what newer ones take apart.
true = :sys.get_state({:counter, py}) in [42, {:ok, 42}]

{:timeout, {GenServer, :call, [{:counter, ^py}, :slow, 50]}} =
  Watching.caught_exit(fn -> GenServer.call({:counter, py}, :slow, 50) end)

# Messages, both ways.
send({:inbox, py}, {"from Elixir", self()})

receive do
  %{from: "Python"} -> :ok
after
  5_000 -> raise "no message"
end

# Monitors: of a process that is not there, and of a server that is stopped.
:noproc = Watching.await_end(Process.monitor({:nobody, py}))

{:noproc, _} = Watching.caught_exit(fn -> GenServer.call({:nobody, py}, :next) end)

server = Process.monitor({:brief, py})
:ok = GenServer.stop({:brief, py}, :done)
:done = Watching.await_end(server)

IO.puts("all is well")
