import logging

from mitmproxy import ctx

from aiproxyd.mitm.host import AddonHost


class Lives:
    name = "lives"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def load(self, loader) -> None:
        loader.add_option("lives_option", int, 3, "Of an addon.")
        loader.add_command("lives.command", self.use)
        self.seen.append("load")

    def configure(self, updated) -> None:
        self.seen.append("configure")

    def running(self) -> None:
        self.seen.append("running")

    def done(self) -> None:
        self.seen.append("done")

    def use(self) -> None:
        pass


async def test_an_addon_lives_as_in_mitmproxy():
    addon = Lives()
    host = AddonHost(addon, lives_option=4)
    await host.running()
    await host.done()
    assert addon.seen[0] == "load"
    assert addon.seen[-2:] == ["running", "done"]
    assert "configure" in addon.seen
    assert ctx.options.lives_option == 4
    assert host.addons.get("lives") is addon


async def test_an_addon_may_ask_for_its_master_and_cannot_end_the_process():
    host = AddonHost()
    assert ctx.master is host
    ctx.master.shutdown()
    assert host.should_exit.is_set()


async def test_no_handler_is_hung_into_the_root_logger():
    before = list(logging.getLogger().handlers)
    AddonHost()
    assert logging.getLogger().handlers == before
