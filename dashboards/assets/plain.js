// Pages without anything live: only ages and the zone.
import './page.js'
