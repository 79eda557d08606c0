"""Variance-aware data selection (Temporal-R1): keep the samples that a group can learn from.

| module     | what it does                                                                  |
|------------|-------------------------------------------------------------------------------|
| signals    | reply -> task rewards, without a format term                                  |
| rules      | task rewards of K tries -> keep or drop, and why; quotas; controls            |
| screen     | asks: a few tries of every sample, the rest only where the few differ         |
| files      | decisions, selected records, ids                                              |
| page       | one HTML file of plots                                                        |
| simulation | what selecting does where the true chances are known                          |
"""
