#include "state/run_record.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "config/json_fields.h"

namespace agent_vm {
namespace {
constexpr std::uint64_t kSchema = 1;
constexpr std::uint64_t kMaxPid = std::numeric_limits<pid_t>::max();
constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();
}  // namespace

std::string to_json_text(const RunRecord& record) {
  const nlohmann::ordered_json root = {
      {"schema", kSchema},
      {"supervisor",
       {{"pid", record.supervisor.pid},
        {"start_time", record.supervisor.start_time},
        {"boot_id", record.supervisor.boot_id}}},
      {"started_at", record.started_at},
      {"bind_address", record.bind_address},
      {"port", record.port},
      {"ssh_port", record.ssh_port},
      {"accel", to_string(record.accel)},
      {"image_key", record.image_key},
  };
  return root.dump(2) + "\n";
}

Result<RunRecord> parse_run_record(std::string_view json_text) {
  const nlohmann::json root = TRY(parse_json(json_text, "run.json"));
  JsonFields fields = TRY(JsonFields::of(root, "run.json"));
  const std::uint64_t schema = TRY(fields.number("schema", kAny));
  if (schema != kSchema) {
    return fail(
        ErrorKind::kInvalidInput,
        "run.json has the schema {} and this agent-vm knows {}: another version started this "
        "VM, and has to stop it",
        schema, kSchema);
  }
  RunRecord record;
  JsonFields supervisor = TRY(fields.object("supervisor"));
  record.supervisor.pid = static_cast<pid_t>(TRY(supervisor.number("pid", kMaxPid)));
  record.supervisor.start_time = TRY(supervisor.number("start_time", kAny));
  record.supervisor.boot_id = TRY(supervisor.text("boot_id"));
  TRY(supervisor.no_others());
  record.started_at = TRY(fields.text("started_at"));
  record.bind_address = TRY(fields.text("bind_address"));
  record.port = static_cast<std::uint16_t>(TRY(fields.number("port", 65535)));
  record.ssh_port = static_cast<std::uint16_t>(TRY(fields.number("ssh_port", 65535)));
  const std::string accel = TRY(fields.text("accel"));
  record.accel = TRY(parse_accel(accel));
  record.image_key = TRY(fields.text("image_key"));
  TRY(fields.no_others());
  return record;
}

}  // namespace agent_vm
