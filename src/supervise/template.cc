#include "supervise/template.h"

#include "base/log.h"
#include "base/text.h"
#include "image/template_store.h"
#include "supervise/identity_program.h"

namespace agent_vm {
namespace {

// Ends when the guest's boot has, with all that the identity step will need in memory.
Task<Status> settle(Machine& machine, Deadline deadline) {
  std::vector<std::string> arguments{"--settle"};
  std::string nothing;
  CO_TRY(const auto steps, co_await run_identity_program(machine.agent(), std::move(arguments),
                                                         std::move(nothing), deadline));
  log::info("settled: {}", dump(steps));
  co_return Status();
}

Task<Status> write_down(Machine& machine, const TemplateSource& source, const TemplateDraft& draft,
                        Deadline deadline) {
  CO_TRY(const Fd devices, draft.create(template_files::kDevices));
  CO_TRY(const Fd pages, draft.create(template_files::kPages));
  CO_TRY(const Fd map, draft.create(template_files::kMap));
  CO_TRY(const Fd root, draft.create(template_files::kRoot));
  const MachineFiles into{
      .devices = devices.get(), .pages = pages.get(), .map = map.get(), .root = root.get()};
  CO_TRY(const auto packed, co_await write_machine(machine, source.storage, into, deadline));
  log::info("the template has {} of memory", format_size(packed));
  co_return Status();
}

}  // namespace

Task<Status> save_template(Machine& machine, TemplateSource source, Deadline deadline) {
  const TemplateStore store(source.image_directory);
  CO_TRY(auto draft, store.begin(source.key));
  if (!draft) co_return Status();
  CO_CHECK(co_await settle(machine, deadline));
  CO_CHECK(co_await machine.stop_processors(deadline));
  const Status written = co_await write_down(machine, source, *draft, deadline);
  CO_CHECK(co_await machine.run_processors(deadline));
  CO_CHECK(written);
  co_return draft->commit();
}

}  // namespace agent_vm
