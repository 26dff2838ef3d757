"""The study of squentropy: design.md is the plan, commands.sh trains, results/ has every run, README.md the answer."""
