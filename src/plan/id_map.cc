#include "plan/id_map.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

std::uint32_t to_outside(const std::vector<IdRange>& ranges, std::uint32_t inside) {
  for (const auto& range : ranges) {
    if (inside >= range.inside && inside - range.inside < range.count) {
      return range.outside + (inside - range.inside);
    }
  }
  return 65534;  // what the kernel shows for an id without a mapping
}

bool overlaps(std::uint32_t first, const SubordinateRange& range) {
  const std::uint64_t end = std::uint64_t{first} + kMappedIds;
  return range.count > 0 && std::uint64_t{range.first} < end &&
         std::uint64_t{range.first} + range.count > first;
}

Result<std::uint32_t> root_range(const IdMapInputs& inputs) {
  std::uint64_t first = kRootRangeStart;
  const auto taken = [&](const SubordinateRange& range) {
    return overlaps(static_cast<std::uint32_t>(first), range);
  };
  while (std::ranges::any_of(inputs.subuids, taken) || std::ranges::any_of(inputs.subgids, taken)) {
    first += kMappedIds;
    // The last ids are special to the kernel: (uid_t)-1 means "none".
    if (first + kMappedIds > 0xFFFF0000ULL) {
      return fail(ErrorKind::kMissing,
                  "no range of {} ids above {} is free of entries of /etc/subuid and /etc/subgid",
                  kMappedIds, kRootRangeStart);
    }
  }
  return static_cast<std::uint32_t>(first);
}

Result<std::uint32_t> own_range(const IdMapInputs& inputs,
                                const std::vector<SubordinateRange>& ranges,
                                std::string_view file) {
  for (const auto& range : ranges) {
    const bool ours = range.owner == inputs.user_name || range.owner == std::to_string(inputs.uid);
    if (ours && range.count >= kMappedIds - 1) return range.first;
  }
  auto error = fail(ErrorKind::kMissing, "user {} has no range of {} subordinate ids in {}",
                    inputs.user_name, kMappedIds, file);
  return tl::unexpected(std::move(error).value().with_hint(
      fmt::format("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
                  inputs.user_name)));
}

// 0..999 and 1001.. are subordinate, 1000 is the user.
std::vector<IdRange> around_user(std::uint32_t subordinate, std::uint32_t own) {
  return {{kGuestRoot, subordinate, kGuestDev},
          {kGuestDev, own, 1},
          {kGuestDev + 1, subordinate + kGuestDev, kMappedIds - kGuestDev - 1}};
}

}  // namespace

std::uint32_t IdMap::outside_uid(std::uint32_t inside) const {
  return to_outside(uids, inside);
}
std::uint32_t IdMap::outside_gid(std::uint32_t inside) const {
  return to_outside(gids, inside);
}

std::vector<SubordinateRange> parse_subordinate_ranges(std::string_view text) {
  std::vector<SubordinateRange> ranges;
  for (const auto& line : split_lines(text)) {
    const auto fields = split(trim(line), ':');
    if (fields.size() != 3 || fields[0].empty()) continue;
    const auto first = parse_unsigned(fields[1]);
    const auto count = parse_unsigned(fields[2]);
    if (!first || !count || *first > UINT32_MAX || *count > UINT32_MAX) continue;
    ranges.push_back(
        {fields[0], static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(*count)});
  }
  return ranges;
}

Result<IdMap> plan_id_map(const IdMapInputs& inputs) {
  IdMap map;
  if (inputs.uid == 0) {
    const std::uint32_t first = TRY(root_range(inputs));
    map.uids =
        map.gids = {{0, first, kSupervisorId},
                    {kSupervisorId, 0, 1},
                    {kSupervisorId + 1, first + kSupervisorId, kMappedIds - kSupervisorId - 1}};
    map.written_directly = true;
    return map;
  }
  map.uids = around_user(TRY(own_range(inputs, inputs.subuids, "/etc/subuid")), inputs.uid);
  map.gids = around_user(TRY(own_range(inputs, inputs.subgids, "/etc/subgid")), inputs.gid);
  return map;
}

std::string format_id_map(const std::vector<IdRange>& ranges) {
  std::string text;
  for (const auto& range : ranges) {
    text += fmt::format("{} {} {}\n", range.inside, range.outside, range.count);
  }
  return text;
}

}  // namespace agent_vm
